package wire

// A TREE_* request is about objects of any server: its receiver does what is
// its own and forwards the rest. Index is the caller's place among its own
// callers' handles and comes back in the response.

// TreeRemoveReq removes objects; the hint names their directory.
//
//	i32 fsid; credential; u32 index; u32 n; handle[n]
type TreeRemoveReq struct {
	FSID    FSID
	Cred    Credential
	Index   uint32
	Handles []Handle
}

// Op is OpTreeRemove.
func (*TreeRemoveReq) Op() Op { return OpTreeRemove }

func (m *TreeRemoveReq) layout(c *codec) {
	n32(c, &m.FSID)
	m.Cred.layout(c)
	n32(c, &m.Index)
	c.handles(&m.Handles, MaxTree)
}

// TreeStatusResp answers TreeRemoveReq and TreeSetAttrReq, in their order.
//
//	pad4; u32 index; u32 n; i32 status[n]
type TreeStatusResp struct {
	Index    uint32
	Statuses []Status
}

func (m *TreeStatusResp) layout(c *codec) {
	c.pad4()
	n32(c, &m.Index)
	list32(c, &m.Statuses, c.count(len(m.Statuses), MaxTree, 4))
}

// TreeSetAttrReq sets the attributes of several objects.
//
//	i32 fsid; credential; i32 type; attr; u32 index; u32 n; handle[n]
type TreeSetAttrReq struct {
	FSID    FSID
	Cred    Credential
	Type    ObjType
	Attr    Attr
	Index   uint32
	Handles []Handle
}

// Op is OpTreeSetAttr.
func (*TreeSetAttrReq) Op() Op { return OpTreeSetAttr }

func (m *TreeSetAttrReq) layout(c *codec) {
	n32(c, &m.FSID)
	m.Cred.layout(c)
	n32(c, &m.Type)
	m.Attr.layout(c)
	n32(c, &m.Index)
	c.handles(&m.Handles, MaxTree)
}

// TreeGetFileSizeReq asks for the sizes of datafiles.
//
//	i32 fsid; u32 index; u32 retry at leaf; credential; u32 n; handle[n]
type TreeGetFileSizeReq struct {
	FSID    FSID
	Index   uint32
	Retry   uint32
	Cred    Credential
	Handles []Handle
}

// Op is OpTreeGetFileSize.
func (*TreeGetFileSizeReq) Op() Op { return OpTreeGetFileSize }

func (m *TreeGetFileSizeReq) layout(c *codec) {
	n32(c, &m.FSID)
	n32(c, &m.Index)
	n32(c, &m.Retry)
	m.Cred.layout(c)
	c.handles(&m.Handles, MaxTree)
}

// TreeGetFileSizeResp is u32 index; u32 n; i64 size[n]; i32 status[n], in the
// request's order.
type TreeGetFileSizeResp struct {
	Index    uint32
	Sizes    []int64
	Statuses []Status // len(Statuses) == len(Sizes)
}

func (m *TreeGetFileSizeResp) layout(c *codec) {
	n32(c, &m.Index)
	n := c.count(len(m.Sizes), MaxTree, 12)
	list64(c, &m.Sizes, n)
	list32(c, &m.Statuses, n)
}

// TreeGetAttrReq asks for the attributes of several objects.
//
//	i32 fsid; u32 index; u32 retry at leaf; credential; u32 mask; u32 n; handle[n]
type TreeGetAttrReq struct {
	FSID    FSID
	Index   uint32
	Retry   uint32
	Cred    Credential
	Mask    AttrMask
	Handles []Handle
}

// Op is OpTreeGetAttr.
func (*TreeGetAttrReq) Op() Op { return OpTreeGetAttr }

func (m *TreeGetAttrReq) layout(c *codec) {
	n32(c, &m.FSID)
	n32(c, &m.Index)
	n32(c, &m.Retry)
	m.Cred.layout(c)
	n32(c, &m.Mask)
	c.handles(&m.Handles, MaxTree)
}

// TreeGetAttrResp is u32 index; u32 n; attr[n]; i32 status[n], in the request's
// order.
type TreeGetAttrResp struct {
	Index    uint32
	Attrs    []Attr
	Statuses []Status // len(Statuses) == len(Attrs)
}

func (m *TreeGetAttrResp) layout(c *codec) {
	n32(c, &m.Index)
	n := c.count(len(m.Attrs), MaxTree, 4+attrSize)
	layoutAttrs(c, &m.Attrs, n)
	list32(c, &m.Statuses, n)
}
