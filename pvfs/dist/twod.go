package dist

import "fmt"

// TwoD divides the servers into groups and stripes over one group at a time:
// factor stripes over the first group, then factor stripes over the next, and
// from the start again after the last. The last group takes the servers that
// are left over.
type TwoD struct {
	strip, factor int64
	n             int64 // servers
	groups, small int64 // number of groups; servers in all but the last
	period        int64 // logical bytes until the pattern repeats
}

// NewTwoD refuses values out of bounds; more groups than servers means as many
// groups as servers.
func NewTwoD(groups int, strip int64, factor int, servers int) (TwoD, error) {
	if err := checkBounds(strip, servers); err != nil {
		return TwoD{}, fmt.Errorf("%s: %w", NameTwoD, err)
	}
	if groups <= 0 || factor <= 0 {
		return TwoD{}, fmt.Errorf("%s: %d groups and factor %d must be positive", NameTwoD, groups, factor)
	}
	period, err := product(int64(servers), strip, int64(factor))
	if err != nil {
		return TwoD{}, fmt.Errorf("%s: %w", NameTwoD, err)
	}
	groups = min(groups, servers)
	return TwoD{strip, int64(factor), int64(servers), int64(groups), int64(servers / groups), period}, nil
}

// group returns the servers [first, first+m) of group k.
func (d TwoD) group(k int64) (first, m int64) {
	first = k * d.small
	if k == d.groups-1 {
		return first, d.n - first
	}
	return first, d.small
}

// Locate finds the group, the row in it and the strip in the row.
func (d TwoD) Locate(off int64) (int, int64, int64) {
	round, in := off/d.period, off%d.period
	k := min(in/(d.small*d.factor*d.strip), d.groups-1)
	first, m := d.group(k)
	in -= first * d.factor * d.strip
	row, in := in/(m*d.strip), in%(m*d.strip)
	j, in := in/d.strip, in%d.strip
	n := d.strip - in
	if m == 1 {
		n = (d.factor-row)*d.strip - in
	}
	return int(first + j), (round*d.factor+row)*d.strip + in, n
}

// Logical is the inverse of Locate.
func (d TwoD) Logical(server int, phys int64) (int64, int64) {
	k := min(int64(server)/d.small, d.groups-1)
	first, m := d.group(k)
	j := int64(server) - first
	round, in := phys/(d.factor*d.strip), phys%(d.factor*d.strip)
	row, in := in/d.strip, in%d.strip
	n := d.strip - in
	if m == 1 {
		n = (d.factor-row)*d.strip - in
	}
	return addSat(mulSat(round, d.period), first*d.factor*d.strip+row*m*d.strip+j*d.strip+in), n
}

// PhysSize counts whole rounds, whole rows and the part of the last row.
func (d TwoD) PhysSize(server int, size int64) int64 {
	k := min(int64(server)/d.small, d.groups-1)
	first, m := d.group(k)
	j := int64(server) - first
	round, in := size/d.period, size%d.period
	in = clamp(in-first*d.factor*d.strip, 0, m*d.factor*d.strip)
	row, in := in/(m*d.strip), in%(m*d.strip)
	return (round*d.factor+row)*d.strip + clamp(in-j*d.strip, 0, d.strip)
}

// Size is the end of the last byte that exists.
func (d TwoD) Size(sizes []int64) int64 { return sizeOf(d, sizes) }

// Strip is the strip size.
func (d TwoD) Strip() int64 { return d.strip }
