package wire

// IOType is the direction of a transfer.
type IOType int32

// The directions.
const (
	IORead  IOType = 1
	IOWrite IOType = 2
)

func (t *IOType) layout(c *codec) {
	n32(c, t)
	if !c.enc && *t != IORead && *t != IOWrite {
		c.fail("transfer of type %d", int32(*t))
	}
}

// flowType is the one flow protocol there is.
const flowType = 3

// IOReq announces a transfer of data between the client and one datafile. The
// data follow in messages of their own. Every server of a file gets the same
// Type, Offset and Size and works out its own part of it.
//
//	u64 handle; i32 fsid; pad4; i32 io type; i32 flow type; u32 server; u32 servers
//	distribution; datatype; i64 offset; i64 size
type IOReq struct {
	Handle    Handle // the datafile
	FSID      FSID
	Dir       IOType
	ServerNr  uint32 // the datafile's index in the file
	ServerCt  uint32 // datafiles of the file
	Dist      Dist
	Type      Datatype // where the data are in the file
	Offset    int64    // bytes of Type's tiled data stream to skip
	Aggregate int64    // bytes of that stream to transfer, over all servers
}

// Op is OpIO.
func (*IOReq) Op() Op { return OpIO }

func (m *IOReq) layout(c *codec) {
	n64(c, &m.Handle)
	n32(c, &m.FSID)
	c.pad4()
	m.Dir.layout(c)
	flow := uint32(flowType)
	n32(c, &flow)
	n32(c, &m.ServerNr)
	n32(c, &m.ServerCt)
	m.Dist.layout(c)
	m.Type.layout(c)
	n64(c, &m.Offset)
	n64(c, &m.Aggregate)
}

// IOResp is i64 size: of the datafile, in bytes, before the transfer.
type IOResp struct{ BstreamSize int64 }

func (m *IOResp) layout(c *codec) { n64(c, &m.BstreamSize) }

// WriteCompletionResp ends a write by IO: i64 bytes written.
type WriteCompletionResp struct{ Total int64 }

func (m *WriteCompletionResp) layout(c *codec) { n64(c, &m.Total) }

// SmallIOReq is a transfer whose data fit into the request or the response.
//
//	u64 handle; i32 fsid; i32 io type; u32 server; u32 servers
//	distribution; datatype; i64 offset; i64 size; i64 total; pad4; data
type SmallIOReq struct {
	Handle    Handle // the datafile
	FSID      FSID
	Dir       IOType
	ServerNr  uint32
	ServerCt  uint32
	Dist      Dist
	Type      Datatype
	Offset    int64
	Aggregate int64
	Total     int64 // bytes of this datafile, len(Data) in a write

	// Data is what a write writes. Decoded, it aliases the input. To send it
	// from where it is, leave it nil and send Total bytes behind the payload.
	Data []byte
}

// Op is OpSmallIO.
func (*SmallIOReq) Op() Op { return OpSmallIO }

func (m *SmallIOReq) layout(c *codec) {
	n64(c, &m.Handle)
	n32(c, &m.FSID)
	m.Dir.layout(c)
	n32(c, &m.ServerNr)
	n32(c, &m.ServerCt)
	m.Dist.layout(c)
	m.Type.layout(c)
	n64(c, &m.Offset)
	n64(c, &m.Aggregate)
	n64(c, &m.Total)
	c.pad4()
	if !c.enc {
		m.Data = nil
	}
	if m.Dir == IOWrite {
		c.data(&m.Data, m.Total)
	}
}

func (m *SmallIOReq) outside() int64 {
	if m.Dir == IOWrite && m.Data == nil {
		return max(m.Total, 0)
	}
	return 0
}

// SmallIOResp answers SmallIOReq.
//
//	i32 io type; pad4; i64 datafile size; i64 result; data
type SmallIOResp struct {
	Dir         IOType
	BstreamSize int64 // of the datafile, in bytes, before the transfer
	Result      int64 // bytes written or read, len(Data) in a read

	// Data is what a read read. Decoded, it aliases the input. To send it from
	// where it is, leave it nil and send Result bytes behind the payload.
	Data []byte
}

func (m *SmallIOResp) layout(c *codec) {
	m.Dir.layout(c)
	c.pad4()
	n64(c, &m.BstreamSize)
	n64(c, &m.Result)
	if !c.enc {
		m.Data = nil
	}
	if m.Dir == IORead {
		c.data(&m.Data, m.Result)
	}
}

func (m *SmallIOResp) outside() int64 {
	if m.Dir == IORead && m.Data == nil {
		return max(m.Result, 0)
	}
	return 0
}

// data is the n bytes that end the payload. Decoding aliases them.
func (c *codec) data(p *[]byte, n int64) {
	if c.enc {
		c.b = append(c.b, *p...)
		return
	}
	if n != int64(c.left()) {
		c.fail("%d bytes of data, not %d", c.left(), n)
	} else if n > 0 {
		*p = c.take(int(n))
	}
}

// TruncateReq sets a datafile's size.
//
//	u64 handle; i32 fsid; pad4; i64 size; i32 flags
type TruncateReq struct {
	Handle Handle
	FSID   FSID
	Size   int64 // physical
	Flags  int32
}

// Op is OpTruncate.
func (*TruncateReq) Op() Op { return OpTruncate }

func (m *TruncateReq) layout(c *codec) {
	n64(c, &m.Handle)
	n32(c, &m.FSID)
	c.pad4()
	n64(c, &m.Size)
	n32(c, &m.Flags)
}

// FlushReq makes an object durable: u64 handle; i32 fsid; i32 flags.
type FlushReq struct {
	Handle Handle
	FSID   FSID
	Flags  int32
}

// Op is OpFlush.
func (*FlushReq) Op() Op { return OpFlush }

func (m *FlushReq) layout(c *codec) {
	n64(c, &m.Handle)
	n32(c, &m.FSID)
	n32(c, &m.Flags)
}

// MirrorReq copies a datafile to others, between servers.
//
//	u64 source; i32 fsid; distribution; u32 size; u32 server; u32 n
//	i32 flow type; i32 encoding; {u64 destination; u32 index}[n]
type MirrorReq struct {
	Source    Handle
	FSID      FSID
	Dist      Dist
	BlockSize uint32
	ServerNr  uint32
	Targets   []MirrorTarget
}

// MirrorTarget is one destination of a MirrorReq.
type MirrorTarget struct {
	Handle Handle
	Index  uint32
}

// Op is OpMirror.
func (*MirrorReq) Op() Op { return OpMirror }

func (m *MirrorReq) layout(c *codec) {
	n64(c, &m.Source)
	n32(c, &m.FSID)
	m.Dist.layout(c)
	n32(c, &m.BlockSize)
	n32(c, &m.ServerNr)
	n := c.count(len(m.Targets), MaxDFiles, 12)
	flow, encoding := uint32(flowType), uint32(encodingLE)
	n32(c, &flow)
	n32(c, &encoding)
	if !c.enc && n > c.left()/12 {
		c.take(12 * n)
		n = 0
	}
	resize(c, &m.Targets, n)
	for i := range m.Targets {
		n64(c, &m.Targets[i].Handle)
		n32(c, &m.Targets[i].Index)
	}
}

// MirrorResp is u64 source; u32 server; u32 n; {u32 bytes; u32 status}[n].
type MirrorResp struct {
	Source   Handle
	ServerNr uint32
	Results  []MirrorResult
}

// MirrorResult is how one copy went.
type MirrorResult struct {
	Bytes  uint32
	Status Status
}

func (m *MirrorResp) layout(c *codec) {
	n64(c, &m.Source)
	n32(c, &m.ServerNr)
	resize(c, &m.Results, c.count(len(m.Results), MaxDFiles, 8))
	for i := range m.Results {
		n32(c, &m.Results[i].Bytes)
		n32(c, &m.Results[i].Status)
	}
}
