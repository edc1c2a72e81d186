package wire

import "strconv"

// Op is the number of an operation.
type Op int32

// The operations, but for those of certificates.
const (
	OpCreate           Op = 1
	OpRemove           Op = 2
	OpIO               Op = 3
	OpGetAttr          Op = 4
	OpSetAttr          Op = 5
	OpLookupPath       Op = 6
	OpCrDirent         Op = 7
	OpRmDirent         Op = 8
	OpChDirent         Op = 9
	OpTruncate         Op = 10
	OpMkdir            Op = 11
	OpReadDir          Op = 12
	OpGetConfig        Op = 13
	OpWriteCompletion  Op = 14 // response only
	OpFlush            Op = 15
	OpSetParam         Op = 16
	OpNoop             Op = 17
	OpStatFS           Op = 18
	OpPerfMon          Op = 20
	OpIterateHandles   Op = 21
	OpDspaceInfoList   Op = 22
	OpEventMon         Op = 23
	OpRemoveObject     Op = 24
	OpRemoveDirent     Op = 25
	OpGetDirdataHandle Op = 26
	OpProtoError       Op = 28 // response only
	OpGetEattr         Op = 29
	OpSetEattr         Op = 30
	OpDelEattr         Op = 31
	OpListEattr        Op = 32
	OpSmallIO          Op = 33
	OpListAttr         Op = 34
	OpBatchCreate      Op = 35
	OpBatchRemove      Op = 36
	OpUnstuff          Op = 38
	OpMirror           Op = 39
	OpImmCopies        Op = 40
	OpTreeRemove       Op = 41
	OpTreeGetFileSize  Op = 42
	OpGetUID           Op = 43
	OpTreeSetAttr      Op = 44
	OpGetDirent        Op = 45
	OpCreateRootDir    Op = 46
	OpSplitDirent      Op = 47
	OpAtomicEattr      Op = 48
	OpTreeGetAttr      Op = 49
)

// MaxOp is above every Op that has a codec, for tables indexed by Op.
const MaxOp = OpTreeGetAttr + 1

// opInfo is how the bodies of an op come into being; nil where it has none.
type opInfo struct {
	name string
	req  func() Request
	resp func() Response
}

// ops[op] is op's row; a row without a name is no op.
var ops = [MaxOp]opInfo{
	OpCreate:           {"create", newReq[CreateReq], newResp[CreateResp]},
	OpRemove:           {"remove", newReq[RemoveReq], nil},
	OpIO:               {"io", newReq[IOReq], newResp[IOResp]},
	OpGetAttr:          {"getattr", newReq[GetAttrReq], newResp[GetAttrResp]},
	OpSetAttr:          {"setattr", newReq[SetAttrReq], nil},
	OpLookupPath:       {"lookup_path", newReq[LookupPathReq], newResp[LookupPathResp]},
	OpCrDirent:         {"crdirent", newReq[CrDirentReq], nil},
	OpRmDirent:         {"rmdirent", newReq[RmDirentReq], newResp[RmDirentResp]},
	OpChDirent:         {"chdirent", newReq[ChDirentReq], newResp[ChDirentResp]},
	OpTruncate:         {"truncate", newReq[TruncateReq], nil},
	OpMkdir:            {"mkdir", newReq[MkdirReq], newResp[MkdirResp]},
	OpReadDir:          {"readdir", newReq[ReadDirReq], newResp[ReadDirResp]},
	OpGetConfig:        {"getconfig", newReq[GetConfigReq], newResp[GetConfigResp]},
	OpWriteCompletion:  {"write_completion", nil, newResp[WriteCompletionResp]},
	OpFlush:            {"flush", newReq[FlushReq], nil},
	OpSetParam:         {"mgmt_setparam", newReq[SetParamReq], nil},
	OpNoop:             {"mgmt_noop", newReq[NoopReq], nil},
	OpStatFS:           {"statfs", newReq[StatFSReq], newResp[StatFSResp]},
	OpPerfMon:          {"mgmt_perf_mon", newReq[PerfMonReq], newResp[PerfMonResp]},
	OpIterateHandles:   {"mgmt_iterate_handles", newReq[IterateHandlesReq], newResp[IterateHandlesResp]},
	OpDspaceInfoList:   {"mgmt_dspace_info_list", newReq[DspaceInfoListReq], newResp[DspaceInfoListResp]},
	OpEventMon:         {"mgmt_event_mon", newReq[EventMonReq], newResp[EventMonResp]},
	OpRemoveObject:     {"mgmt_remove_object", newReq[RemoveObjectReq], nil},
	OpRemoveDirent:     {"mgmt_remove_dirent", newReq[RemoveDirentReq], nil},
	OpGetDirdataHandle: {"mgmt_get_dirdata_handle", newReq[GetDirdataHandleReq], newResp[GetDirdataHandleResp]},
	OpProtoError:       {"proto_error", nil, nil},
	OpGetEattr:         {"geteattr", newReq[GetEattrReq], newResp[GetEattrResp]},
	OpSetEattr:         {"seteattr", newReq[SetEattrReq], nil},
	OpDelEattr:         {"deleattr", newReq[DelEattrReq], nil},
	OpListEattr:        {"listeattr", newReq[ListEattrReq], newResp[ListEattrResp]},
	OpSmallIO:          {"small_io", newReq[SmallIOReq], newResp[SmallIOResp]},
	OpListAttr:         {"listattr", newReq[ListAttrReq], newResp[ListAttrResp]},
	OpBatchCreate:      {"batch_create", newReq[BatchCreateReq], newResp[BatchCreateResp]},
	OpBatchRemove:      {"batch_remove", newReq[BatchRemoveReq], nil},
	OpUnstuff:          {"unstuff", newReq[UnstuffReq], newResp[UnstuffResp]},
	OpMirror:           {"mirror", newReq[MirrorReq], newResp[MirrorResp]},
	OpImmCopies:        {"imm_copies", newReq[ImmCopiesReq], nil},
	OpTreeRemove:       {"tree_remove", newReq[TreeRemoveReq], newResp[TreeStatusResp]},
	OpTreeGetFileSize:  {"tree_get_file_size", newReq[TreeGetFileSizeReq], newResp[TreeGetFileSizeResp]},
	OpGetUID:           {"mgmt_get_uid", newReq[GetUIDReq], newResp[GetUIDResp]},
	OpTreeSetAttr:      {"tree_setattr", newReq[TreeSetAttrReq], newResp[TreeStatusResp]},
	OpGetDirent:        {"mgmt_get_dirent", newReq[GetDirentReq], newResp[GetDirentResp]},
	OpCreateRootDir:    {"mgmt_create_root_dir", newReq[CreateRootDirReq], nil},
	OpSplitDirent:      {"mgmt_split_dirent", newReq[SplitDirentReq], nil},
	OpAtomicEattr:      {"atomiceattr", newReq[AtomicEattrReq], newResp[GetEattrResp]},
	OpTreeGetAttr:      {"tree_getattr", newReq[TreeGetAttrReq], newResp[TreeGetAttrResp]},
}

func newReq[T any, P interface {
	*T
	Request
}]() Request {
	return P(new(T))
}

func newResp[T any, P interface {
	*T
	Response
}]() Response {
	return P(new(T))
}

func (op Op) info() *opInfo {
	if op <= 0 || op >= MaxOp || ops[op].name == "" {
		return nil
	}
	return &ops[op]
}

// String is op's name in the protocol, in lower case.
func (op Op) String() string {
	if i := op.info(); i != nil {
		return i.name
	}
	return "op" + strconv.Itoa(int(op))
}

// newRequest is an empty body to decode op's request into, nil if none exists.
func newRequest(op Op) Request {
	if i := op.info(); i != nil && i.req != nil {
		return i.req()
	}
	return nil
}

// newResponse is an empty body to decode op's response into, nil if it is
// always empty; known is false if there is no such op.
func newResponse(op Op) (body Response, known bool) {
	i := op.info()
	if i == nil {
		return nil, false
	}
	if i.resp == nil {
		return nil, true
	}
	return i.resp(), true
}
