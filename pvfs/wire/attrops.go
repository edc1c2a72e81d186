package wire

// GetAttrReq asks for attributes.
//
//	u64 handle; i32 fsid; u32 mask; credential
type GetAttrReq struct {
	Handle Handle
	FSID   FSID
	Mask   AttrMask // with AttrCapability: for the credential's rights
	Cred   Credential
}

// Op is OpGetAttr.
func (*GetAttrReq) Op() Op { return OpGetAttr }

func (m *GetAttrReq) layout(c *codec) {
	n64(c, &m.Handle)
	n32(c, &m.FSID)
	n32(c, &m.Mask)
	m.Cred.layout(c)
}

// GetAttrResp is the attributes; their mask may be smaller than asked for.
type GetAttrResp struct{ Attr Attr }

func (m *GetAttrResp) layout(c *codec) { m.Attr.layout(c) }

// SetAttrReq changes the attributes in Attr.Mask.
//
//	u64 handle; i32 fsid; pad4; attr; credential
type SetAttrReq struct {
	Handle Handle
	FSID   FSID
	Attr   Attr // times are taken only with AttrAtimeSet and AttrMtimeSet
	Cred   Credential
}

// Op is OpSetAttr.
func (*SetAttrReq) Op() Op { return OpSetAttr }

func (m *SetAttrReq) layout(c *codec) {
	n64(c, &m.Handle)
	n32(c, &m.FSID)
	c.pad4()
	m.Attr.layout(c)
	m.Cred.layout(c)
}

// ListAttrReq asks for the attributes of several objects of one server.
//
//	i32 fsid; u32 mask; pad4; u32 n; handle[n]
type ListAttrReq struct {
	FSID    FSID
	Mask    AttrMask
	Handles []Handle
}

// Op is OpListAttr.
func (*ListAttrReq) Op() Op { return OpListAttr }

func (m *ListAttrReq) layout(c *codec) {
	n32(c, &m.FSID)
	n32(c, &m.Mask)
	c.pad4()
	c.handles(&m.Handles, MaxListAttr)
}

// ListAttrResp is pad4; u32 n; i32 status[n]; attr[n], in the request's order.
type ListAttrResp struct {
	Statuses []Status
	Attrs    []Attr // len(Attrs) == len(Statuses)
}

func (m *ListAttrResp) layout(c *codec) {
	c.pad4()
	n := c.count(len(m.Attrs), MaxListAttr, 4+attrSize)
	list32(c, &m.Statuses, n)
	layoutAttrs(c, &m.Attrs, n)
}

// UnstuffReq gives a stuffed file all its datafiles; on another file it only
// asks for the attributes.
//
//	u64 handle; i32 fsid; u32 mask; credential
type UnstuffReq struct {
	Handle Handle
	FSID   FSID
	Mask   AttrMask
	Cred   Credential
}

// Op is OpUnstuff.
func (*UnstuffReq) Op() Op { return OpUnstuff }

func (m *UnstuffReq) layout(c *codec) {
	n64(c, &m.Handle)
	n32(c, &m.FSID)
	n32(c, &m.Mask)
	m.Cred.layout(c)
}

// UnstuffResp is the attributes.
type UnstuffResp struct{ Attr Attr }

func (m *UnstuffResp) layout(c *codec) { m.Attr.layout(c) }

// Flags of SetEattrReq and AtomicEattrReq.
const (
	EattrCreate  int32 = 1 // the key must not exist; servers may not enforce it
	EattrReplace int32 = 2 // the key must exist
)

// GetEattrReq asks for extended attributes. Keys and values conventionally
// end in a NUL that counts.
//
//	u64 handle; i32 fsid; i32 n; keyval key[n]; i64 room[n]
type GetEattrReq struct {
	Handle Handle
	FSID   FSID
	Keys   [][]byte
	Rooms  []int64 // len(Rooms) == len(Keys): bytes the caller has for each value
}

// Op is OpGetEattr.
func (*GetEattrReq) Op() Op { return OpGetEattr }

func (m *GetEattrReq) layout(c *codec) {
	n64(c, &m.Handle)
	n32(c, &m.FSID)
	n := c.count(len(m.Keys), MaxEattrs, 16)
	c.keyvals(&m.Keys, n, MaxEattrKey)
	list64(c, &m.Rooms, n)
}

// GetEattrResp is pad4; i32 n; keyval value[n]; i32 status[n]. It answers
// ATOMICEATTR as well.
type GetEattrResp struct {
	Values   [][]byte
	Statuses []Status // len(Statuses) == len(Values)
}

func (m *GetEattrResp) layout(c *codec) {
	c.pad4()
	n := c.count(len(m.Values), MaxEattrs, 12)
	c.keyvals(&m.Values, n, MaxEattrValue)
	list32(c, &m.Statuses, n)
}

// SetEattrReq sets extended attributes.
//
//	u64 handle; i32 fsid; i32 flags; pad4; i32 n; keyval key[n]; keyval value[n]
type SetEattrReq struct {
	Handle Handle
	FSID   FSID
	Flags  int32
	Keys   [][]byte
	Values [][]byte // len(Values) == len(Keys)
}

// Op is OpSetEattr.
func (*SetEattrReq) Op() Op { return OpSetEattr }

func (m *SetEattrReq) layout(c *codec) {
	n64(c, &m.Handle)
	n32(c, &m.FSID)
	n32(c, &m.Flags)
	c.pad4()
	n := c.count(len(m.Keys), MaxEattrs, 16)
	c.keyvals(&m.Keys, n, MaxEattrKey)
	c.keyvals(&m.Values, n, MaxEattrValue)
}

// DelEattrReq removes one extended attribute: u64 handle; i32 fsid; keyval key.
type DelEattrReq struct {
	Handle Handle
	FSID   FSID
	Key    []byte
}

// Op is OpDelEattr.
func (*DelEattrReq) Op() Op { return OpDelEattr }

func (m *DelEattrReq) layout(c *codec) {
	n64(c, &m.Handle)
	n32(c, &m.FSID)
	c.keyval(&m.Key, MaxEattrKey)
}

// ListEattrReq asks for the keys of extended attributes.
//
//	u64 handle; i32 fsid; pad4; u64 token; u32 n; i64 room[n]
type ListEattrReq struct {
	Handle Handle
	FSID   FSID
	Token  uint64  // TokenStart, or the last reply's
	Rooms  []int64 // bytes the caller has for each key
}

// Op is OpListEattr.
func (*ListEattrReq) Op() Op { return OpListEattr }

func (m *ListEattrReq) layout(c *codec) {
	n64(c, &m.Handle)
	n32(c, &m.FSID)
	c.pad4()
	n64(c, &m.Token)
	list64(c, &m.Rooms, c.count(len(m.Rooms), MaxEattrList, 8))
}

// ListEattrResp is u64 token; pad4; u32 n; keyval key[n].
type ListEattrResp struct {
	Token uint64 // TokenEnd after the last key
	Keys  [][]byte
}

func (m *ListEattrResp) layout(c *codec) {
	n64(c, &m.Token)
	c.pad4()
	c.keyvals(&m.Keys, c.count(len(m.Keys), MaxEattrList, 8), MaxEattrKey)
}

// AtomicEattrReq reads and changes extended attributes in one step.
//
//	u64 handle; i32 fsid; i32 flags; i32 opcode; i32 n
//	keyval key[n]; keyval value[n]; i64 room[n]
type AtomicEattrReq struct {
	Handle Handle
	FSID   FSID
	Flags  int32
	Opcode int32
	Keys   [][]byte
	Values [][]byte // len(Values) == len(Keys)
	Rooms  []int64  // len(Rooms) == len(Keys)
}

// Op is OpAtomicEattr.
func (*AtomicEattrReq) Op() Op { return OpAtomicEattr }

func (m *AtomicEattrReq) layout(c *codec) {
	n64(c, &m.Handle)
	n32(c, &m.FSID)
	n32(c, &m.Flags)
	n32(c, &m.Opcode)
	n := c.count(len(m.Keys), MaxEattrs, 24)
	c.keyvals(&m.Keys, n, MaxEattrKey)
	c.keyvals(&m.Values, n, MaxEattrValue)
	list64(c, &m.Rooms, n)
}
