package wire

import (
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// golden reads testdata/name.hex: a line a field, of name, bytes and value.
func golden(t *testing.T, name string) (b []byte) {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name + ".hex")
	require.NoError(t, err)
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		f := strings.Fields(line)
		if f[0] == "#" {
			continue
		}
		x, err := hex.DecodeString(f[1])
		require.NoError(t, err)
		b = append(b, x...)
	}
	return b
}

func goldenCred() Credential {
	return Credential{Groups: []uint32{0}, Issuer: "C:vm", Timeout: 1795330209}
}

func goldenCap(issuer string, timeout int64, ops OpMask, h ...Handle) *Capability {
	return &Capability{Issuer: issuer, FSID: 305419896, Timeout: timeout, Ops: ops, Handles: h}
}

// TestGoldenRequests checks whole request messages, pads zeroed, both ways.
func TestGoldenRequests(t *testing.T) {
	const fs = FSID(305419896)
	file := goldenCap("S:s0", 1795327289, 0xffffffaf, 1152921504606837605, 5764607523034231769,
		9223372036854772992, 8070450532247926016, 5764607523034234880)
	vecFile := *file
	vecFile.Timeout = 1795327286
	dir := goldenCap("S:s1", 1795327209, MayAll, 2305843009213684619, 2305843009213684618)
	for _, c := range []struct {
		name string
		tag  int64
		cap  *Capability
		obj  Handle
		body Request
	}{
		{"getattr_request", 6, nil, 1048576, &GetAttrReq{Handle: 1048576, FSID: fs, Mask: AttrAll &^ AttrTarget, Cred: goldenCred()}},
		{"create_request", 11, dir, 2305843009213684619, &CreateReq{
			FSID: fs, Cred: goldenCred(), NumDFiles: 4, Layout: Layout{Type: LayoutRoundRobin},
			Attr: Attr{Perms: 0o644, Mask: AttrCommon | AttrDist | AttrDFiles | AttrMirrors, Type: TypeMetafile,
				Dist: NewSimpleStripe(65536)},
		}},
		{"crdirent_request", 12, dir, 2305843009213684619, &CrDirentReq{
			Cred: goldenCred(), Name: "c1", Handle: 3458764513820531596, Parent: 2305843009213684619,
			Dirdata: 2305843009213684618, FSID: fs,
		}},
		{"io_request_displaced_vector", 13, file, 1152921504606837605, &IOReq{
			Handle: 5764607523034231769, FSID: fs, Dir: IOWrite, ServerCt: 4, Dist: NewSimpleStripe(65536),
			Type: must(HVectorAt(70000, 8, 4096, 65536)), Aggregate: 32768,
		}},
		{"small_io_request_vector", 13, &vecFile, 1152921504606837605, &SmallIOReq{
			Handle: 5764607523034231769, FSID: fs, Dir: IORead, ServerCt: 4, Dist: NewSimpleStripe(65536),
			Type: must(HVector(16, 100, 1000)), Aggregate: 1600,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := golden(t, c.name)
			got, err := AppendRequestFrame(nil, c.tag, c.cap, []Hint{ObjectHint(c.obj)}, c.body)
			require.NoError(t, err)
			require.Equal(t, hex.Dump(want), hex.Dump(got))

			h, err := DecodeHeader(want)
			require.NoError(t, err)
			require.Equal(t, Header{Unexpected, c.tag, int64(len(want) - HeaderSize)}, h)
			rh, body, err := DecodeRequest(want[HeaderSize:])
			require.NoError(t, err)
			require.Equal(t, c.body, body)
			require.Equal(t, c.body.Op(), rh.Op)
			obj, ok := rh.Object()
			require.True(t, ok)
			require.Equal(t, c.obj, obj)
			require.Equal(t, c.cap == nil, rh.Cap.IsNull())
			require.Equal(t, c.cap != nil, rh.Cap.Covers(c.obj))
		})
	}
}

// TestGoldenResponses checks whole response messages, pads zeroed, both ways.
func TestGoldenResponses(t *testing.T) {
	dir := Attr{Perms: 0o755, Atime: 1795326600, Mtime: 1795326600, Ctime: 1795326600, Mask: AttrCommon, Type: TypeDirectory}
	for _, c := range []struct {
		name   string
		tag    int64
		op     Op
		status Status
		body   Response
	}{
		{"getattr_response_directory", 6, OpGetAttr, 0, &GetAttrResp{Attr{
			Perms: 0o777, Atime: 1795325910, Mtime: 1795325910, Ctime: 1795325910,
			Mask: AttrCommon | AttrDirHint | AttrDistDir | AttrCapability, Type: TypeDirectory,
			Cap:     *goldenCap("S:s0", 1795327209, MayAll, 1048576, 1152921504606846957),
			DistDir: DistDir{SplitSize: 100, Bitmap: []uint32{1}, Dirdata: []Handle{1152921504606846957}},
		}}},
		{"crdirent_response_exists", 12, OpCrDirent, -1073741835, nil},
		{"geteattr_response_missing_key", 13, OpGetEattr, 0, &GetEattrResp{
			Values:   [][]byte{[]byte("v1\x00"), nil, []byte("value two\x00")},
			Statuses: []Status{0, -1073742082, 0},
		}},
		{"readdir_response", 31, OpReadDir, 0, &ReadDirResp{Token: 1, Version: 7710869148603243914,
			Dirents: []Dirent{{"f00002", 1152921504606837640}, {"f00010", 3458764513820531595}}}},
		{"lookup_path_response", 14, OpLookupPath, 0, &LookupPathResp{
			Handles: []Handle{4611686018427378569, 4611686018427378567, 3458764513820531598},
			Attrs:   []Attr{dir, dir},
		}},
		{"tree_get_file_size_response", 14, OpTreeGetFileSize, 0, &TreeGetFileSizeResp{
			Sizes: []int64{131072, 131072, 72320, 65536}, Statuses: make([]Status, 4)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := golden(t, c.name)
			require.Equal(t, hex.Dump(want), hex.Dump(AppendResponseFrame(nil, c.tag, c.op, c.status, c.body)))

			h, err := DecodeHeader(want)
			require.NoError(t, err)
			require.Equal(t, Header{Eager, c.tag, int64(len(want) - HeaderSize)}, h)
			op, status, body, err := DecodeResponse(want[HeaderSize:])
			require.NoError(t, err)
			require.Equal(t, c.op, op)
			require.Equal(t, c.status, status)
			require.Equal(t, c.body, body)
		})
	}
}

// TestUncaptured walks the bodies that no capture shows through both
// directions, every list and option in use.
func TestUncaptured(t *testing.T) {
	for _, m := range []Request{
		&IterateHandlesReq{FSID: 1, Count: 2, Flags: 1, Position: 9},
		&DspaceInfoListReq{FSID: 1, Handles: []Handle{1, 2}},
		&EventMonReq{Count: 3},
		&RemoveObjectReq{Handle: 4, FSID: 1},
		&RemoveDirentReq{Dirdata: 4, FSID: 1, Name: "a"},
		&GetDirdataHandleReq{Handle: 4, FSID: 1},
		&BatchRemoveReq{FSID: 1, Handles: []Handle{3, 4, 5}},
		&MirrorReq{Source: 1, FSID: 2, Dist: Dist{Name: BasicDist}, BlockSize: 3, ServerNr: 4,
			Targets: []MirrorTarget{{5, 6}, {7, 8}}},
		&ImmCopiesReq{},
		&GetUIDReq{History: 60},
		&CreateRootDirReq{Handle: 1048576, FSID: 1},
		&AtomicEattrReq{Handle: 1, FSID: 2, Flags: EattrCreate, Opcode: 1, Keys: [][]byte{[]byte("user.a\x00")},
			Values: [][]byte{[]byte("b")}, Rooms: []int64{99}},
		&SetParamReq{FSID: 1, Param: ParamEventEnable, IsText: true, Text: "all"},
	} {
		t.Run(m.Op().String(), func(t *testing.T) {
			hints := []Hint{{Type: HintUnknown, Name: "n", Text: "text"}, {Type: HintRank, Value: 7}, ObjectHint(1 << 40)}
			cap := &Capability{Issuer: "S:a", Signature: []byte{1, 2, 3}, Ops: MayRead, Handles: []Handle{9}}
			b := AppendRequest(nil, cap, hints, m)
			h, body, err := DecodeRequest(b)
			require.NoError(t, err)
			require.Equal(t, m, body)
			require.Equal(t, RequestHeader{m.Op(), *cap, hints}, h)
			_, _, err = DecodeRequest(append(b, 0, 0, 0, 0))
			require.Error(t, err, "trailing bytes")
			_, _, err = DecodeRequest(b[:len(b)-1])
			require.Error(t, err, "a byte missing")
		})
	}
	for op, m := range map[Op]Response{
		OpIterateHandles:   &IterateHandlesResp{Position: 5, Handles: []Handle{1}},
		OpDspaceInfoList:   &DspaceInfoListResp{[]DspaceInfo{{StatusOf(2), 3, TypeDatafile, 4, 5}}},
		OpEventMon:         &EventMonResp{[][48]byte{{1}, {2}}},
		OpGetDirdataHandle: &GetDirdataHandleResp{6},
		OpMirror:           &MirrorResp{Source: 1, ServerNr: 2, Results: []MirrorResult{{3, StatusOf(5)}}},
		OpGetUID:           &GetUIDResp{[]UIDUse{{1, 2, 3, 4, 5, 6}}},
		OpAtomicEattr:      &GetEattrResp{[][]byte{[]byte("x")}, []Status{0}},
		OpGetAttr: &GetAttrResp{Attr{Mask: AttrDFiles | AttrMirrors | AttrUnstuffed, Type: TypeMetafile, Flags: FlagMirror,
			DFiles: []Handle{1, 2}, MirrorCopies: 2, Mirrors: []Handle{3, 4, 5, 6}}},
	} {
		t.Run(op.String()+" response", func(t *testing.T) {
			b := AppendResponse(nil, op, 0, m)
			_, _, body, err := DecodeResponse(b)
			require.NoError(t, err)
			require.Equal(t, m, body)
			_, _, _, err = DecodeResponse(b[:len(b)-1])
			require.Error(t, err)
		})
	}
}

// TestEveryOp checks that every op of the protocol has a row and that requests
// know their own.
func TestEveryOp(t *testing.T) {
	absent := map[Op]bool{0: true, 19: true, 27: true, 37: true}
	for op := Op(0); op < MaxOp; op++ {
		req := newRequest(op)
		_, known := newResponse(op)
		require.Equal(t, !absent[op], known, "op %d", int32(op))
		require.Equal(t, !absent[op] && op != OpWriteCompletion && op != OpProtoError, req != nil, "%v", op)
		if req != nil {
			require.Equal(t, op, req.Op())
		}
	}
	for _, op := range []Op{-1, 19, MaxOp, 99} {
		require.Nil(t, newRequest(op))
		_, known := newResponse(op)
		require.False(t, known)
		require.Contains(t, op.String(), "op")
	}
}

func TestAttrHelpers(t *testing.T) {
	d := DistDir{Bitmap: []uint32{5, 1}, Dirdata: make([]Handle, 33)}
	for i := -1; i < 70; i++ {
		require.Equal(t, i == 0 || i == 2 || i == 32, d.Active(i), "bucket %d", i)
	}
	a := Attr{Type: TypeMetafile, StuffedSize: 3}
	require.True(t, a.Stuffed())
	b, err := DecodeAttr(AppendAttr(nil, &a))
	require.NoError(t, err)
	require.Equal(t, a, b)
	dist := Dist{Name: TwodStripe, StripSize: 65536, NumGroups: 2, GroupStripFactor: 256}
	back, err := DecodeDist(AppendDist(nil, &dist))
	require.NoError(t, err)
	require.Equal(t, dist, back)
	_, err = DecodeDist(AppendDist(nil, &Dist{Name: "unheard_of"}))
	require.Error(t, err)
}
