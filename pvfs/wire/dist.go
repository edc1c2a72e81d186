package wire

// The distributions.
const (
	SimpleStripe = "simple_stripe"
	BasicDist    = "basic_dist"
	TwodStripe   = "twod_stripe"
	VarstripDist = "varstrip_dist"
)

// Dist is a distribution by name with its parameters; which of the fields
// count follows from the name. Nothing here says that they make sense: that a
// strip size is positive is for the package that does the arithmetic.
//
//	string name
//	simple_stripe: i64 strip size
//	twod_stripe:   u32 groups; i64 strip size; u32 group strip factor
//	varstrip_dist: string strips
//	align8
type Dist struct {
	Name             string
	StripSize        int64  // simple_stripe, twod_stripe
	NumGroups        uint32 // twod_stripe
	GroupStripFactor uint32 // twod_stripe
	Strips           string // varstrip_dist, such as "0:16384;1:32k"
}

// NewSimpleStripe is the usual distribution.
func NewSimpleStripe(stripSize int64) Dist {
	return Dist{Name: SimpleStripe, StripSize: stripSize}
}

// AppendDist appends d to dst, which is taken as the start of a payload.
func AppendDist(dst []byte, d *Dist) []byte {
	c := encoder(dst)
	d.layout(c)
	return c.b
}

// DecodeDist decodes what AppendDist wrote.
func DecodeDist(b []byte) (Dist, error) {
	var d Dist
	c := decoder(b)
	d.layout(c)
	return d, c.end()
}

func (d *Dist) layout(c *codec) {
	if c.enc {
		c.str(&d.Name, MaxDistName)
	} else {
		d.Name = distName(c)
	}
	switch d.Name {
	case SimpleStripe:
		n64(c, &d.StripSize)
	case TwodStripe:
		n32(c, &d.NumGroups)
		n64(c, &d.StripSize)
		n32(c, &d.GroupStripFactor)
	case VarstripDist:
		c.str(&d.Strips, MaxDistParams)
	}
	c.align8()
}

// distName decodes a name without allocating it and refuses an unknown one,
// whose parameters have no known length.
func distName(c *codec) string {
	b := c.strBytes(MaxDistName)
	for _, name := range [...]string{SimpleStripe, BasicDist, TwodStripe, VarstripDist} {
		if string(b) == name {
			return name
		}
	}
	c.fail("distribution %q", b)
	return ""
}
