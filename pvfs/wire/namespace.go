package wire

// CreateReq makes a metafile and its datafiles.
//
//	i32 fsid; pad4; credential; attr; i32 datafiles; layout
type CreateReq struct {
	FSID      FSID
	Cred      Credential
	Attr      Attr  // AttrCommon|AttrDist|AttrDFiles|AttrMirrors, TypeMetafile
	NumDFiles int32 // wanted
	Layout    Layout
}

// Op is OpCreate.
func (*CreateReq) Op() Op { return OpCreate }

func (m *CreateReq) layout(c *codec) {
	n32(c, &m.FSID)
	c.pad4()
	m.Cred.layout(c)
	m.Attr.layout(c)
	n32(c, &m.NumDFiles)
	m.Layout.layout(c)
}

// CreateResp is the metafile made.
//
//	u64 handle; u32 stuffed; attr
type CreateResp struct {
	Handle  Handle
	Stuffed uint32 // 1 if the file has one local datafile for now
	Attr    Attr
}

func (m *CreateResp) layout(c *codec) {
	n64(c, &m.Handle)
	n32(c, &m.Stuffed)
	m.Attr.layout(c)
}

// RemoveReq removes an object; the hint names its directory.
//
//	u64 handle; i32 fsid; credential
type RemoveReq struct {
	Handle Handle
	FSID   FSID
	Cred   Credential
}

// Op is OpRemove.
func (*RemoveReq) Op() Op { return OpRemove }

func (m *RemoveReq) layout(c *codec) {
	n64(c, &m.Handle)
	n32(c, &m.FSID)
	m.Cred.layout(c)
}

// LookupPathReq resolves a path below a directory.
//
//	string path; i32 fsid; pad4; u64 start; u32 mask; credential
type LookupPathReq struct {
	Path  string // without leading slash
	FSID  FSID
	Start Handle // a directory
	Mask  AttrMask
	Cred  Credential
}

// Op is OpLookupPath.
func (*LookupPathReq) Op() Op { return OpLookupPath }

func (m *LookupPathReq) layout(c *codec) {
	c.str(&m.Path, MaxPath)
	n32(c, &m.FSID)
	c.pad4()
	n64(c, &m.Start)
	n32(c, &m.Mask)
	m.Cred.layout(c)
}

// LookupPathResp is the objects of as many leading segments as the server
// knows. The last one may live elsewhere: then it has no attributes.
//
//	pad4; u32 n; handle[n]; pad4; u32 m; attr[m]
type LookupPathResp struct {
	Handles []Handle
	Attrs   []Attr // len(Handles) or one less
}

func (m *LookupPathResp) layout(c *codec) {
	c.pad4()
	c.handles(&m.Handles, MaxSegments)
	c.pad4()
	layoutAttrs(c, &m.Attrs, c.count(len(m.Attrs), MaxSegments, attrSize))
}

// CrDirentReq makes a directory entry.
//
//	credential; string name; u64 new; u64 parent; u64 dirdata; i32 fsid
type CrDirentReq struct {
	Cred    Credential
	Name    string
	Handle  Handle // what the entry names
	Parent  Handle // the directory
	Dirdata Handle // the bucket of Name
	FSID    FSID
}

// Op is OpCrDirent.
func (*CrDirentReq) Op() Op { return OpCrDirent }

func (m *CrDirentReq) layout(c *codec) {
	m.Cred.layout(c)
	c.str(&m.Name, MaxName)
	n64(c, &m.Handle)
	n64(c, &m.Parent)
	n64(c, &m.Dirdata)
	n32(c, &m.FSID)
}

// RmDirentReq removes a directory entry, not the object.
//
//	string name; u64 dirdata; i32 fsid
type RmDirentReq struct {
	Name    string
	Dirdata Handle
	FSID    FSID
}

// Op is OpRmDirent.
func (*RmDirentReq) Op() Op { return OpRmDirent }

func (m *RmDirentReq) layout(c *codec) {
	c.str(&m.Name, MaxName)
	n64(c, &m.Dirdata)
	n32(c, &m.FSID)
}

// RmDirentResp is u64 handle: what the entry named.
type RmDirentResp struct{ Handle Handle }

func (m *RmDirentResp) layout(c *codec) { n64(c, &m.Handle) }

// ChDirentReq makes an entry name another object.
//
//	string name; u64 new; u64 dirdata; i32 fsid
type ChDirentReq struct {
	Name    string
	Handle  Handle // what the entry names from now on
	Dirdata Handle
	FSID    FSID
}

// Op is OpChDirent.
func (*ChDirentReq) Op() Op { return OpChDirent }

func (m *ChDirentReq) layout(c *codec) {
	c.str(&m.Name, MaxName)
	n64(c, &m.Handle)
	n64(c, &m.Dirdata)
	n32(c, &m.FSID)
}

// ChDirentResp is u64 handle: what the entry named before.
type ChDirentResp struct{ Handle Handle }

func (m *ChDirentResp) layout(c *codec) { n64(c, &m.Handle) }

// MkdirReq makes a directory and its dirdata objects.
//
//	i32 fsid; pad4; credential; attr; extent array
//	i32 initial servers; i32 max servers; i32 split size; layout
type MkdirReq struct {
	FSID           FSID
	Cred           Credential
	Attr           Attr          // AttrCommon|AttrDirHint, TypeDirectory
	Ranges         []HandleRange // the server's handles for metadata
	ServersInitial int32         // 0: as configured
	ServersMax     int32         // 0: as configured
	SplitSize      int32         // 0: as configured
	Layout         Layout
}

// Op is OpMkdir.
func (*MkdirReq) Op() Op { return OpMkdir }

func (m *MkdirReq) layout(c *codec) {
	n32(c, &m.FSID)
	c.pad4()
	m.Cred.layout(c)
	m.Attr.layout(c)
	layoutRanges(c, &m.Ranges)
	n32(c, &m.ServersInitial)
	n32(c, &m.ServersMax)
	n32(c, &m.SplitSize)
	m.Layout.layout(c)
}

// MkdirResp is u64 handle; capability, which is null in practice.
type MkdirResp struct {
	Handle Handle
	Cap    Capability
}

func (m *MkdirResp) layout(c *codec) {
	n64(c, &m.Handle)
	m.Cap.layout(c)
}

// ReadDirReq asks for entries of one bucket.
//
//	u64 dirdata; i32 fsid; u32 count; pad4; u64 token
type ReadDirReq struct {
	Dirdata Handle
	FSID    FSID
	Count   uint32 // at most MaxDirents
	Token   uint64 // TokenStart, or the last reply's
}

// Op is OpReadDir.
func (*ReadDirReq) Op() Op { return OpReadDir }

func (m *ReadDirReq) layout(c *codec) {
	n64(c, &m.Dirdata)
	n32(c, &m.FSID)
	n32(c, &m.Count)
	c.pad4()
	n64(c, &m.Token)
}

// Dirent is a directory entry: string name; u64 handle.
type Dirent struct {
	Name   string
	Handle Handle
}

// ReadDirResp is entries in the server's order, without "." and "..".
//
//	u64 token; u64 version; pad4; u32 n; dirent[n]
type ReadDirResp struct {
	Token   uint64 // TokenEnd after the last entry
	Version uint64 // opaque
	Dirents []Dirent
}

func (m *ReadDirResp) layout(c *codec) {
	n64(c, &m.Token)
	n64(c, &m.Version)
	c.pad4()
	resize(c, &m.Dirents, c.count(len(m.Dirents), MaxDirents, 16))
	for i := range m.Dirents {
		c.str(&m.Dirents[i].Name, MaxName)
		n64(c, &m.Dirents[i].Handle)
	}
}

// BatchCreateReq makes objects of one type.
//
//	i32 fsid; i32 type; u32 count; pad4; extent array
type BatchCreateReq struct {
	FSID   FSID
	Type   ObjType
	Count  uint32
	Ranges []HandleRange
}

// Op is OpBatchCreate.
func (*BatchCreateReq) Op() Op { return OpBatchCreate }

func (m *BatchCreateReq) layout(c *codec) {
	n32(c, &m.FSID)
	n32(c, &m.Type)
	n32(c, &m.Count)
	if !c.enc && m.Count > MaxBatch {
		c.fail("%d objects to create", m.Count)
	}
	c.pad4()
	layoutRanges(c, &m.Ranges)
}

// BatchCreateResp is pad4; u32 n; handle[n].
type BatchCreateResp struct{ Handles []Handle }

func (m *BatchCreateResp) layout(c *codec) {
	c.pad4()
	c.handles(&m.Handles, MaxBatch)
}

// BatchRemoveReq removes objects: i32 fsid; i32 n; handle[n].
type BatchRemoveReq struct {
	FSID    FSID
	Handles []Handle
}

// Op is OpBatchRemove.
func (*BatchRemoveReq) Op() Op { return OpBatchRemove }

func (m *BatchRemoveReq) layout(c *codec) {
	n32(c, &m.FSID)
	c.handles(&m.Handles, MaxBatch)
}

// SplitDirentReq moves entries to another bucket, between servers.
//
//	i32 fsid; u64 dirdata; distribution; pad4; i32 undo; i32 n; handle[n]; string[n]
type SplitDirentReq struct {
	FSID    FSID
	Dirdata Handle // where the entries go
	Dist    Dist   // basic_dist
	Undo    int32
	Handles []Handle
	Names   []string // len(Names) == len(Handles)
}

// Op is OpSplitDirent.
func (*SplitDirentReq) Op() Op { return OpSplitDirent }

func (m *SplitDirentReq) layout(c *codec) {
	n32(c, &m.FSID)
	n64(c, &m.Dirdata)
	m.Dist.layout(c)
	c.pad4()
	n32(c, &m.Undo)
	n := c.count(len(m.Handles), MaxMgmt, 16)
	list64(c, &m.Handles, n)
	c.strs(&m.Names, n, MaxName)
}
