package ionpb

import "github.com/zoidfs/zoidfs/internal/consistency"

// ConsistencyOf is m as it goes over the wire.
func ConsistencyOf(m consistency.Mode) Consistency { return Consistency(m) }

// Mode is the mode that came over the wire. A number that this version does
// not know, from a newer one, is Strong: no mode promises more.
func (c Consistency) Mode() consistency.Mode {
	if _, ok := Consistency_name[int32(c)]; !ok {
		return consistency.Strong
	}
	return consistency.Mode(c)
}
