package wire

import "slices"

// OpMask says which operations a capability allows.
type OpMask uint32

// The rights in a capability.
const (
	MayExec OpMask = 1 << iota
	MayWrite
	MayRead
	MaySetAttr
	MayCreate
	MayAdmin
	MayRemove
	MayBatchCreate
	MayBatchRemove

	// MayAll is every right, as servers grant to uid 0.
	MayAll OpMask = 0xffffffff
)

// Capability is the right to do the operations of Ops with the objects of
// Handles. Servers grant it in attributes and check it in requests; without
// certificates nothing in it is signed. The zero value is the null capability.
//
//	string issuer; i32 fsid; pad4; u32 n; signature[n]; align8
//	i64 timeout; u32 ops; u32 n; handle[n]; align8
type Capability struct {
	Issuer    string // "S:" and the server's alias; empty in the null capability
	FSID      FSID
	Signature []byte
	Timeout   int64 // seconds since the epoch
	Ops       OpMask
	Handles   []Handle // the object first, then its datafiles or dirdata
}

// IsNull reports whether p grants nothing and comes from nobody.
func (p *Capability) IsNull() bool { return p.Issuer == "" && p.Ops == 0 }

// Covers reports whether h is among p's handles.
func (p *Capability) Covers(h Handle) bool { return slices.Contains(p.Handles, h) }

func (p *Capability) layout(c *codec) {
	c.str(&p.Issuer, MaxIssuer)
	n32(c, &p.FSID)
	c.pad4()
	c.blob(&p.Signature, MaxSignature)
	c.align8()
	n64(c, &p.Timeout)
	n32(c, &p.Ops)
	c.handles(&p.Handles, MaxCapHandles)
	c.align8()
}

// Credential says who asks.
//
//	pad4; pad4; u32 uid; u32 n; gid[n]; align8; string issuer; i64 timeout
//	u32 n; signature[n]; align8; pad4; u32 n; certificate[n]; align8
type Credential struct {
	UID         uint32
	Groups      []uint32 // servers want at least one
	Issuer      string   // any text; tools send "C:" and the host's name
	Timeout     int64    // seconds since the epoch
	Signature   []byte
	Certificate []byte
}

func (p *Credential) layout(c *codec) {
	c.pad4()
	c.pad4()
	n32(c, &p.UID)
	list32(c, &p.Groups, c.count(len(p.Groups), MaxGroups, 4))
	c.align8()
	c.str(&p.Issuer, MaxIssuer)
	n64(c, &p.Timeout)
	c.blob(&p.Signature, MaxSignature)
	c.align8()
	c.pad4()
	c.blob(&p.Certificate, MaxCert)
	c.align8()
}

// HintType is what a hint tells.
type HintType uint32

// The hints that go over the wire.
const (
	HintUnknown   HintType = 0 // Name and Text
	HintRequestID HintType = 1
	HintClientID  HintType = 2
	HintHandle    HintType = 3 // the object that the whole call is about
	HintRank      HintType = 5
	HintServerID  HintType = 6
	HintOwnerGID  HintType = 13
)

// Hint is a remark on a request. IO, SMALL_IO, REMOVE and TREE_REMOVE need
// HintHandle, as servers look it up in the capability; the rest are optional.
//
//	u32 type; then HintUnknown: string name, string text; HintHandle: u64; else u32
type Hint struct {
	Type  HintType
	Value uint64 // all but HintUnknown; only HintHandle has more than 32 bits
	Name  string // HintUnknown
	Text  string // HintUnknown
}

// ObjectHint is the hint that a call is about h.
func ObjectHint(h Handle) Hint { return Hint{Type: HintHandle, Value: uint64(h)} }

// layoutHints is a u32 count and the hints.
func layoutHints(c *codec, p *[]Hint) {
	resize(c, p, c.count(len(*p), MaxHints, 8))
	for i := range *p {
		(*p)[i].layout(c)
		if c.err != nil {
			return
		}
	}
}

func (p *Hint) layout(c *codec) {
	n32(c, &p.Type)
	switch p.Type {
	case HintUnknown:
		c.str(&p.Name, MaxName)
		c.str(&p.Text, MaxPath)
	case HintHandle:
		n64(c, &p.Value)
	case HintRequestID, HintClientID, HintRank, HintServerID, HintOwnerGID:
		v := uint32(p.Value)
		n32(c, &v)
		if !c.enc {
			p.Value = uint64(v)
		}
	default:
		c.fail("hint of type %d", p.Type)
	}
}
