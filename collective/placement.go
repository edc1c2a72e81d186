package collective

import (
	"errors"
	"fmt"
	"hash/fnv"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// DefaultDomainSize is the size of a file domain in bytes: sixteen stripes of
// four servers with PVFS2's default strip of 64 KiB.
const DefaultDomainSize int64 = 4 << 20

// Placement maps inodes to their home and file domains to their owner over
// one view of the I/O nodes. Every party that holds the same member list and
// domain size computes the same answer, in whatever order the members come.
type Placement struct {
	members    []string
	weights    []uint64 // weights[i] belongs to members[i]
	domainSize int64
}

// NewPlacement returns the placement over members, the addresses of the I/O
// nodes. It fails if there is none, if two are equal, or if domainSize, in
// bytes, is not positive.
func NewPlacement(members []string, domainSize int64) (*Placement, error) {
	if len(members) == 0 {
		return nil, errors.New("collective: a view needs at least one I/O node")
	}
	if domainSize <= 0 {
		return nil, fmt.Errorf("collective: domain size %d is not positive", domainSize)
	}
	p := &Placement{members: append([]string(nil), members...), domainSize: domainSize}
	seen := make(map[string]bool, len(members))
	for _, m := range members {
		if seen[m] {
			return nil, fmt.Errorf("collective: I/O node %s is in the view twice", m)
		}
		seen[m] = true
		h := fnv.New64a()
		h.Write([]byte(m)) // never fails
		p.weights = append(p.weights, mix(h.Sum64()))
	}
	return p, nil
}

// Members is the member list in the order given; callers must not change it.
func (p *Placement) Members() []string { return p.members }

// DomainSize is the size of a file domain in bytes.
func (p *Placement) DomainSize() int64 { return p.domainSize }

// Home is the index of the I/O node that keeps the attributes, directory
// entries, locks and open counts of the inode with this handle. It is also
// the owner of the file's first domain.
func (p *Placement) Home(handle uint64) int { return p.pick(handle, 0) }

// Owner is the index of the I/O node through which every access to the byte
// at off of this file passes. off is not negative.
func (p *Placement) Owner(handle uint64, off int64) int {
	return p.pick(handle, uint64(off/p.domainSize))
}

// Split cuts e at the borders of file domains: the pieces are in order, touch
// each other, cover e, and each lies in one domain. An empty e has no pieces.
func (p *Placement) Split(e extent.Extent) []extent.Extent {
	var out []extent.Extent
	for off := e.Off; off < e.End(); {
		n := min(p.domainSize-off%p.domainSize, e.End()-off)
		out = append(out, extent.Extent{Off: off, Len: n})
		off += n
	}
	return out
}

// pick is rendezvous hashing: the member whose hash with the key is largest.
func (p *Placement) pick(handle, domain uint64) int {
	key := mix(mix(handle) + domain)
	best, bestHash := 0, uint64(0)
	for i, w := range p.weights {
		h := mix(key ^ w)
		if i == 0 || h > bestHash || (h == bestHash && p.members[i] < p.members[best]) {
			best, bestHash = i, h
		}
	}
	return best
}

// mix is a bijection of 64-bit words that spreads every input bit over the
// whole word. Source: Steele, Lea and Flood, "Fast Splittable Pseudorandom
// Number Generators", OOPSLA '14, section 5 (SplitMix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
