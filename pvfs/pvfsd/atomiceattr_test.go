package pvfsd_test

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

func TestAtomicEattr(t *testing.T) {
	cl := pvfsdtest.Start(t, 1, pvfsdtest.Options{})
	c := dial(t, cl.Addr(0), cl.Config())
	f := c.create(1, wire.LayoutNone).Handle
	key := []byte("user.n\x00")
	atomic := func(op int32, given ...byte) ([]byte, error) {
		var resp wire.GetEattrResp
		err := c.try(c.all(f), f, &wire.AtomicEattrReq{Handle: f, FSID: c.fsid, Opcode: op, Keys: [][]byte{key}, Values: [][]byte{given}, Rooms: []int64{100}}, &resp)
		if err != nil {
			return nil, err
		}
		return resp.Values[0], nil
	}
	_, err := atomic(2, 1)
	require.ErrorIs(t, err, syscall.ENOENT)
	c.call(c.all(f), f, &wire.SetEattrReq{Handle: f, FSID: c.fsid, Keys: [][]byte{key}, Values: [][]byte{{0, 0, 0, 0}}}, nil)
	for _, step := range []struct {
		op         int32
		given, old []byte
	}{
		{1, []byte{9, 0, 0, 0}, []byte{0, 0, 0, 0}},       // test and set
		{1, []byte{9, 0, 0, 0}, []byte{1, 0, 0, 0}},       // it is set already
		{0xadd, []byte{255, 1, 0, 0}, []byte{1, 0, 0, 0}}, // fetch and add
		{0xadd, []byte{1}, []byte{0, 2, 0, 0}},            // no number
		{4, []byte{1, 0, 0, 0}, []byte{0, 2, 0, 0}},       // no such operation
		{2, []byte("text"), []byte{0, 2, 0, 0}},           // swap
		{2, []byte("x"), []byte("text")},
	} {
		old, err := atomic(step.op, step.given...)
		require.NoError(t, err)
		require.Equal(t, step.old, old)
	}
}
