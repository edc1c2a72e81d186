package rpc

import (
	"bytes"
	"math"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/zoidfs/zoidfs/internal/buf"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

// cut is b in pieces of n bytes, from a pool that poisons what is freed.
func cut(pool *buf.Pool, b []byte, n int) mem.BufferSlice {
	var out mem.BufferSlice
	for len(b) > 0 {
		k := min(n, len(b))
		p := pool.Get(4 << 10) // above gRPC's threshold for counting
		copy(*p, b[:k])
		*p = (*p)[:k]
		out = append(out, mem.NewBuffer(p, pool))
		b = b[k:]
	}
	return out
}

func message(f *Frame) *ionpb.Frame {
	m := &ionpb.Frame{
		Id: f.ID, Op: uint32(f.Op), Epoch: f.Epoch, Handle: f.Handle, Off: f.Off, Len: f.Len,
		Flags: f.Flags, Errno: uint32(f.Errno), Acked: f.Acked, Body: f.Body,
	}
	if n := f.Data.Len(); n > 0 {
		m.Data = make([]byte, n)
		f.Data.CopyTo(m.Data)
	}
	return m
}

func frames() map[string]*Frame {
	return map[string]*Frame{
		"empty":           {},
		"header only":     {ID: 1, Op: ionpb.Op_GETATTR, Epoch: 3, Handle: math.MaxUint64, Acked: 9},
		"extreme numbers": {ID: math.MaxUint64, Op: math.MinInt32, Off: math.MinInt64, Len: math.MaxInt64, Flags: math.MaxUint32, Errno: syscall.Errno(math.MaxUint32)},
		"body":            {ID: 2, Body: bytes.Repeat([]byte("b"), 300)},
		"data":            {ID: 3, Off: 1 << 40, Len: 7, Data: Static([]byte("payload"))},
		"body and data":   {ID: 4, Op: ionpb.Op_FENCED_WRITE, Body: []byte{1, 2}, Data: Static(bytes.Repeat([]byte{7}, 9000))},
	}
}

// TestEncodesAsProtobuf: a peer with generated code reads our frames.
func TestEncodesAsProtobuf(t *testing.T) {
	for name, f := range frames() {
		t.Run(name, func(t *testing.T) {
			out, err := newCodec().Marshal(f)
			require.NoError(t, err)
			var m ionpb.Frame
			require.NoError(t, proto.Unmarshal(out.Materialize(), &m))
			require.True(t, proto.Equal(message(f), &m), "%v", &m)
		})
	}
}

// TestDecodesHoweverCut: flow control may cut a message anywhere, and the
// transport frees its references as soon as the codec returns.
func TestDecodesHoweverCut(t *testing.T) {
	var pool buf.Pool
	for name, f := range frames() {
		wire, err := proto.Marshal(message(f))
		require.NoError(t, err)
		for _, n := range []int{1, 2, 3, 5, 17, 4 << 10} {
			t.Run(name, func(t *testing.T) {
				in := cut(&pool, wire, n)
				var got Frame
				require.NoError(t, newCodec().Unmarshal(in, &got))
				in.Free()
				require.True(t, proto.Equal(message(f), message(&got)), "pieces of %d", n)
				got.Data.Release()
			})
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		wire []byte
		want error
	}{
		{"tag cut short", []byte{0x80}, errTruncated},
		{"value missing", []byte{fieldID << 3}, errTruncated},
		{"number of eleven bytes", append([]byte{fieldID << 3}, bytes.Repeat([]byte{0xff}, 11)...), errMalformed},
		{"field zero", []byte{0x00, 1}, errMalformed},
		{"group", []byte{fieldID<<3 | 3, fieldID<<3 | 4}, errMalformed},
		{"body longer than the message", []byte{fieldBody<<3 | 2, 5, 1}, errTruncated},
		{"data longer than the message", []byte{fieldData<<3 | 2, 5, 1}, errTruncated},
		{"body over the limit", []byte{fieldBody<<3 | 2, 0x81, 0x80, 0x40}, errTooLong},
		{"data over the limit", []byte{fieldData<<3 | 2, 0x81, 0x80, 0x80, 0x02}, errTooLong},
		{"unknown field of 2^63 bytes", []byte{13<<3 | 2, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01}, errTooLong},
	} {
		t.Run(c.name, func(t *testing.T) {
			for n := 1; n <= len(c.wire); n++ {
				var f Frame
				require.ErrorIs(t, newCodec().Unmarshal(cut(new(buf.Pool), c.wire, n), &f), c.want)
			}
		})
	}
}

func TestEncodeRefusesWhatNobodyWouldDecode(t *testing.T) {
	_, err := newCodec().Marshal(&Frame{Body: make([]byte, MaxBody+1)})
	require.Error(t, err)
	_, err = newCodec().Marshal(&Frame{Data: Static(make([]byte, MaxData+1))})
	require.Error(t, err)
}

// FuzzCodec compares with generated code on arbitrary bytes in arbitrary cuts.
func FuzzCodec(f *testing.F) {
	for _, fr := range frames() {
		wire, _ := proto.Marshal(message(fr))
		f.Add(wire, 3)
	}
	f.Add([]byte{fieldData<<3 | 2, 1, 'a', fieldData<<3 | 2, 1, 'b', fieldID << 3, 1, 13<<3 | 5, 1, 2, 3, 4}, 1)
	var pool buf.Pool
	f.Fuzz(func(t *testing.T, wire []byte, n int) {
		if len(wire) > 1<<16 {
			return
		}
		in := cut(&pool, wire, 1+int(uint(n)%64))
		var got Frame
		err := newCodec().Unmarshal(in, &got)
		in.Free()
		var want ionpb.Frame
		protoErr := proto.Unmarshal(wire, &want)
		if err != nil {
			// We are stricter in two points: groups and limits.
			if protoErr == nil && err != errMalformed && err != errTooLong {
				t.Fatalf("protobuf takes what we refuse: %v", err)
			}
			return
		}
		defer got.Data.Release()
		if protoErr != nil {
			t.Fatalf("protobuf refuses what we take: %v", protoErr)
		}
		want.ProtoReflect().SetUnknown(nil)
		if !proto.Equal(message(&got), &want) {
			t.Fatalf("decoded %v, protobuf says %v", message(&got), &want)
		}
		out, err := newCodec().Marshal(&got)
		if err != nil {
			t.Fatal(err)
		}
		var again ionpb.Frame
		if err := proto.Unmarshal(out.Materialize(), &again); err != nil || !proto.Equal(&again, &want) {
			t.Fatalf("encoded again: %v, %v", &again, err)
		}
	})
}
