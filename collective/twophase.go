package collective

import "github.com/zoidfs/zoidfs/internal/extent"

// Hints are those of MPI-IO that say how aggregators divide a file among
// themselves. Zero is no hint.
//
// Source: MPI: A Message-Passing Interface Standard, version 4.1, section 14.2.8.
type Hints struct {
	CBNodes        int   // aggregators, at most
	CBBufferSize   int64 // bytes of an aggregator's buffer
	StripingUnit   int64 // bytes of a strip
	StripingFactor int   // servers
}

// stripe is the size of a stripe in bytes, at least 1.
func (h Hints) stripe() int64 {
	return max(1, h.StripingUnit) * int64(max(1, h.StripingFactor))
}

// FileDomains divides hull, the extent from the first to the last byte of a
// collective access, among n aggregators, or CBNodes if that is fewer: runs of whole
// stripes, but for the ends, as even as can be. There are fewer domains where hull
// has fewer stripes.
func (h Hints) FileDomains(hull extent.Extent, n int) []extent.Extent {
	if h.CBNodes > 0 {
		n = min(n, h.CBNodes)
	}
	if hull.Empty() || n < 1 {
		return nil
	}
	stripe := h.stripe()
	first := hull.Off / stripe
	stripes := (hull.End()-1)/stripe - first + 1
	domains := min(int64(n), stripes)
	out := make([]extent.Extent, 0, domains)
	for i := range domains {
		from, to := first+stripes*i/domains, first+stripes*(i+1)/domains
		e := extent.Extent{Off: from * stripe, Len: (to - from) * stripe}
		out = append(out, e.Intersect(hull))
	}
	return out
}

// Round is how many bytes an owner of file domains moves at a time: whole domains,
// as many as CBBufferSize has room for, but at least one; without that hint usual.
func (h Hints) Round(usual, domain int64) int64 {
	if h.CBBufferSize <= 0 {
		return usual
	}
	return max(h.CBBufferSize/domain, 1) * domain
}
