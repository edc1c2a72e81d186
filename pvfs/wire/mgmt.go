package wire

// GetConfigReq asks for the server's configuration text. It has no fields.
type GetConfigReq struct{}

// Op is OpGetConfig.
func (*GetConfigReq) Op() Op { return OpGetConfig }

func (*GetConfigReq) layout(*codec) {}

// GetConfigResp is u32 length of the text and its NUL; pad4; string text.
type GetConfigResp struct{ Config string }

func (m *GetConfigResp) layout(c *codec) {
	n := uint32(len(m.Config)) + 1
	n32(c, &n)
	c.pad4()
	c.str(&m.Config, MaxConfig)
}

// Param is what a SetParamReq sets.
type Param int32

// The parameters that clients check or set.
const (
	ParamGossipMask   Param = 1
	ParamFSIDCheck    Param = 2 // value is an FSID: ENOENT if it is unknown
	ParamRootCheck    Param = 3 // value is the root handle: 0 only on its owner
	ParamMode         Param = 4 // 1 normal, 2 admin
	ParamPerfHistory  Param = 5
	ParamPerfInterval Param = 6
	ParamEventEnable  Param = 7 // text
	ParamEventDisable Param = 8 // text
	ParamSyncMeta     Param = 9
	ParamSyncData     Param = 10
	ParamDropCaches   Param = 11
	ParamTimeoutsOff  Param = 12
)

// SetParamReq is i32 fsid; i32 param; i32 type; u64 value (type 0) or string
// text (type 1).
type SetParamReq struct {
	FSID   FSID
	Param  Param
	IsText bool
	Value  uint64
	Text   string // if IsText
}

// Op is OpSetParam.
func (*SetParamReq) Op() Op { return OpSetParam }

func (m *SetParamReq) layout(c *codec) {
	n32(c, &m.FSID)
	n32(c, &m.Param)
	var kind uint32
	if m.IsText {
		kind = 1
	}
	n32(c, &kind)
	if !c.enc {
		m.IsText = kind == 1
	}
	switch kind {
	case 0:
		n64(c, &m.Value)
	case 1:
		c.str(&m.Text, MaxParam)
	default:
		c.fail("parameter of type %d", kind)
	}
}

// NoopReq asks whether the server answers. It has no fields.
type NoopReq struct{}

// Op is OpNoop.
func (*NoopReq) Op() Op { return OpNoop }

func (*NoopReq) layout(*codec) {}

// ImmCopiesReq is for certificates of immutable copies. It has no fields.
type ImmCopiesReq struct{}

// Op is OpImmCopies.
func (*ImmCopiesReq) Op() Op { return OpImmCopies }

func (*ImmCopiesReq) layout(*codec) {}

// StatFSReq is i32 fsid.
type StatFSReq struct{ FSID FSID }

// Op is OpStatFS.
func (*StatFSReq) Op() Op { return OpStatFS }

func (m *StatFSReq) layout(c *codec) { n32(c, &m.FSID) }

// StatFSResp is one server's state.
//
//	pad4; i32 fsid; i64 available, total; u64 ram total, ram free
//	u64 load[3]; u64 uptime; u64 handles available, handles total
type StatFSResp struct {
	FSID             FSID
	Available, Total int64 // bytes
	RAMTotal         uint64
	RAMFree          uint64
	Load             [3]uint64 // over 1, 5 and 15 minutes, times 65536
	Uptime           uint64    // seconds
	HandlesAvailable uint64
	HandlesTotal     uint64
}

func (m *StatFSResp) layout(c *codec) {
	c.pad4()
	n32(c, &m.FSID)
	n64(c, &m.Available)
	n64(c, &m.Total)
	n64(c, &m.RAMTotal)
	n64(c, &m.RAMFree)
	for i := range m.Load {
		n64(c, &m.Load[i])
	}
	n64(c, &m.Uptime)
	n64(c, &m.HandlesAvailable)
	n64(c, &m.HandlesTotal)
}

// PerfMonReq asks for performance counters.
//
//	u32 counter type; u32 next id; u32 keys; u32 samples
type PerfMonReq struct{ CounterType, NextID, KeyCount, Count uint32 }

// Op is OpPerfMon.
func (*PerfMonReq) Op() Op { return OpPerfMon }

func (m *PerfMonReq) layout(c *codec) {
	n32(c, &m.CounterType)
	n32(c, &m.NextID)
	n32(c, &m.KeyCount)
	n32(c, &m.Count)
}

// PerfMonResp is u32 keys; u32 next id; u64 end, now in ms; u32 samples; u32 n;
// i64[n].
type PerfMonResp struct {
	KeyCount, NextID uint32
	EndMs, NowMs     uint64
	Samples          uint32
	Values           []int64
}

func (m *PerfMonResp) layout(c *codec) {
	n32(c, &m.KeyCount)
	n32(c, &m.NextID)
	n64(c, &m.EndMs)
	n64(c, &m.NowMs)
	n32(c, &m.Samples)
	list64(c, &m.Values, c.count(len(m.Values), MaxMgmt, 8))
}

// IterateHandlesReq lists a server's handles.
//
//	i32 fsid; i32 count; i32 flags (1: reserved handles); u64 position
type IterateHandlesReq struct {
	FSID     FSID
	Count    int32
	Flags    int32
	Position uint64
}

// Op is OpIterateHandles.
func (*IterateHandlesReq) Op() Op { return OpIterateHandles }

func (m *IterateHandlesReq) layout(c *codec) {
	n32(c, &m.FSID)
	n32(c, &m.Count)
	n32(c, &m.Flags)
	n64(c, &m.Position)
}

// IterateHandlesResp is u64 position; pad4; i32 n; handle[n].
type IterateHandlesResp struct {
	Position uint64
	Handles  []Handle
}

func (m *IterateHandlesResp) layout(c *codec) {
	n64(c, &m.Position)
	c.pad4()
	c.handles(&m.Handles, MaxMgmt)
}

// DspaceInfoListReq is i32 fsid; i32 n; handle[n].
type DspaceInfoListReq struct {
	FSID    FSID
	Handles []Handle
}

// Op is OpDspaceInfoList.
func (*DspaceInfoListReq) Op() Op { return OpDspaceInfoList }

func (m *DspaceInfoListReq) layout(c *codec) {
	n32(c, &m.FSID)
	c.handles(&m.Handles, MaxMgmt)
}

// DspaceInfo is what a server knows of one object.
//
//	i32 status; pad4; u64 handle; i32 type; pad4; i64 size; u64 dirdata
type DspaceInfo struct {
	Status  Status
	Handle  Handle
	Type    ObjType
	Size    int64
	Dirdata Handle
}

// DspaceInfoListResp is pad4; i32 n; info[n].
type DspaceInfoListResp struct{ Infos []DspaceInfo }

func (m *DspaceInfoListResp) layout(c *codec) {
	c.pad4()
	resize(c, &m.Infos, c.count(len(m.Infos), MaxMgmt, 40))
	for i := range m.Infos {
		d := &m.Infos[i]
		n32(c, &d.Status)
		c.pad4()
		n64(c, &d.Handle)
		n32(c, &d.Type)
		c.pad4()
		n64(c, &d.Size)
		n64(c, &d.Dirdata)
	}
}

// EventMonReq is u32 count.
type EventMonReq struct{ Count uint32 }

// Op is OpEventMon.
func (*EventMonReq) Op() Op { return OpEventMon }

func (m *EventMonReq) layout(c *codec) { n32(c, &m.Count) }

// EventMonResp is pad4; u32 n; n records of 48 opaque bytes.
type EventMonResp struct{ Events [][48]byte }

func (m *EventMonResp) layout(c *codec) {
	c.pad4()
	resize(c, &m.Events, c.count(len(m.Events), MaxMgmt, 48))
	for i := range m.Events {
		if c.enc {
			c.b = append(c.b, m.Events[i][:]...)
		} else {
			copy(m.Events[i][:], c.take(48))
		}
	}
}

// RemoveObjectReq removes an object unconditionally: u64 handle; i32 fsid.
type RemoveObjectReq struct {
	Handle Handle
	FSID   FSID
}

// Op is OpRemoveObject.
func (*RemoveObjectReq) Op() Op { return OpRemoveObject }

func (m *RemoveObjectReq) layout(c *codec) {
	n64(c, &m.Handle)
	n32(c, &m.FSID)
}

// RemoveDirentReq is u64 dirdata; i32 fsid; pad4; string name.
type RemoveDirentReq struct {
	Dirdata Handle
	FSID    FSID
	Name    string
}

// Op is OpRemoveDirent.
func (*RemoveDirentReq) Op() Op { return OpRemoveDirent }

func (m *RemoveDirentReq) layout(c *codec) {
	n64(c, &m.Dirdata)
	n32(c, &m.FSID)
	c.pad4()
	c.str(&m.Name, MaxName)
}

// GetDirdataHandleReq is u64 directory; i32 fsid.
type GetDirdataHandleReq struct {
	Handle Handle
	FSID   FSID
}

// Op is OpGetDirdataHandle.
func (*GetDirdataHandleReq) Op() Op { return OpGetDirdataHandle }

func (m *GetDirdataHandleReq) layout(c *codec) {
	n64(c, &m.Handle)
	n32(c, &m.FSID)
}

// GetDirdataHandleResp is u64 dirdata.
type GetDirdataHandleResp struct{ Dirdata Handle }

func (m *GetDirdataHandleResp) layout(c *codec) { n64(c, &m.Dirdata) }

// GetUIDReq is u32 history in seconds.
type GetUIDReq struct{ History uint32 }

// Op is OpGetUID.
func (*GetUIDReq) Op() Op { return OpGetUID }

func (m *GetUIDReq) layout(c *codec) { n32(c, &m.History) }

// UIDUse is a user seen by a server.
//
//	u32 uid; u64 count; u64 s, u32 us of the first; u64 s, u32 us of the last
type UIDUse struct {
	UID               uint32
	Count             uint64
	FirstSec, LastSec uint64
	FirstUs, LastUs   uint32
}

// GetUIDResp is pad4; u32 n; use[n].
type GetUIDResp struct{ Uses []UIDUse }

func (m *GetUIDResp) layout(c *codec) {
	c.pad4()
	resize(c, &m.Uses, c.count(len(m.Uses), MaxMgmt, 36))
	for i := range m.Uses {
		u := &m.Uses[i]
		n32(c, &u.UID)
		n64(c, &u.Count)
		n64(c, &u.FirstSec)
		n32(c, &u.FirstUs)
		n64(c, &u.LastSec)
		n32(c, &u.LastUs)
	}
}

// GetDirentReq looks a name up in one bucket, between servers.
//
//	u64 dirdata; i32 fsid; string name
type GetDirentReq struct {
	Dirdata Handle
	FSID    FSID
	Name    string
}

// Op is OpGetDirent.
func (*GetDirentReq) Op() Op { return OpGetDirent }

func (m *GetDirentReq) layout(c *codec) {
	n64(c, &m.Dirdata)
	n32(c, &m.FSID)
	c.str(&m.Name, MaxName)
}

// GetDirentResp is u64 handle; i32 status.
type GetDirentResp struct {
	Handle Handle
	Status Status
}

func (m *GetDirentResp) layout(c *codec) {
	n64(c, &m.Handle)
	n32(c, &m.Status)
}

// CreateRootDirReq makes the root directory at first start: u64 handle; i32 fsid.
type CreateRootDirReq struct {
	Handle Handle
	FSID   FSID
}

// Op is OpCreateRootDir.
func (*CreateRootDirReq) Op() Op { return OpCreateRootDir }

func (m *CreateRootDirReq) layout(c *codec) {
	n64(c, &m.Handle)
	n32(c, &m.FSID)
}
