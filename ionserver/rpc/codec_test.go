package rpc

import (
	"bytes"
	"errors"
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
		Flags: f.Flags, Errno: uint32(f.Errno), Acked: f.Acked, Job: f.Job, Age: f.Age, Buffer: f.Buffer, Body: f.Body,
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
		"header only":     {ID: 1, Op: ionpb.Op_GETATTR, Epoch: 3, Handle: math.MaxUint64, Acked: 9, Job: math.MaxUint64, Age: math.MaxUint64, Buffer: math.MaxUint64},
		"extreme numbers": {ID: math.MaxUint64, Op: math.MinInt32, Off: math.MinInt64, Len: math.MaxInt64, Flags: math.MaxUint32, Errno: syscall.Errno(math.MaxUint32)},
		"body":            {ID: 2, Body: bytes.Repeat([]byte("b"), 300)},
		"data":            {ID: 3, Off: 1 << 40, Len: 7, Data: Static([]byte("payload"))},
		"body and data":   {ID: 4, Op: ionpb.Op_FENCED_WRITE, Body: []byte{1, 2}, Data: Static(bytes.Repeat([]byte{7}, 9000))},
	}
}

// encode is a packet of frames as we send it.
func encode(frames ...*Frame) ([]byte, error) {
	p := outPacket{head: newHead(func(*head) {})}
	for _, f := range frames {
		p.items = append(p.items, &item{frame: *f})
	}
	out, err := newCodec().Marshal(&p)
	defer out.Free()
	return out.Materialize(), err
}

func decode(in mem.BufferSlice) ([]*Frame, error) {
	p := inPacket{newFrame: func() *Frame { return new(Frame) }}
	err := newCodec().Unmarshal(in, &p)
	return p.frames, err
}

// packet is frames as generated code has them.
func packet(frames ...*Frame) *ionpb.Packet {
	m := new(ionpb.Packet)
	for _, f := range frames {
		m.Frames = append(m.Frames, message(f))
	}
	return m
}

// TestEncodesAsProtobuf: a peer with generated code reads our packets.
func TestEncodesAsProtobuf(t *testing.T) {
	for name, f := range frames() {
		t.Run(name, func(t *testing.T) {
			many := []*Frame{{ID: 9}, {ID: 8, Body: []byte("x")}, f}
			wire, err := encode(many...)
			require.NoError(t, err)
			var m ionpb.Packet
			require.NoError(t, proto.Unmarshal(wire, &m))
			require.True(t, proto.Equal(packet(many...), &m), "%v", &m)
		})
	}
}

// TestDecodesHoweverCut: flow control may cut a message anywhere, and the
// transport frees its references as soon as the codec returns.
func TestDecodesHoweverCut(t *testing.T) {
	var pool buf.Pool
	for name, f := range frames() {
		want := packet(&Frame{ID: 77, Body: []byte("before")}, f, &Frame{ID: 78})
		wire, err := proto.Marshal(want)
		require.NoError(t, err)
		for _, n := range []int{1, 2, 3, 5, 17, 4 << 10} {
			t.Run(name, func(t *testing.T) {
				in := cut(&pool, wire, n)
				got, err := decode(in)
				require.NoError(t, err)
				in.Free()
				require.True(t, proto.Equal(want, packet(got...)), "pieces of %d", n)
				for _, f := range got {
					f.Data.Release()
				}
			})
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, c := range []struct {
		name  string
		frame []byte
		want  error
	}{
		{"tag cut short", []byte{0x80}, errTruncated},
		{"value missing", []byte{fieldID << 3}, errTruncated},
		{"number of eleven bytes", append([]byte{fieldID << 3}, bytes.Repeat([]byte{0xff}, 11)...), errMalformed},
		{"field zero", []byte{0x00, 1}, errMalformed},
		{"group", []byte{fieldID<<3 | 3, fieldID<<3 | 4}, errMalformed},
		{"body longer than the frame", []byte{fieldBody<<3 | 2, 5, 1}, errTruncated},
		{"data longer than the frame", []byte{fieldData<<3 | 2, 5, 1}, errTruncated},
		{"body over the limit", []byte{fieldBody<<3 | 2, 0x81, 0x80, 0x40}, errTooLong},
		{"data over the limit", []byte{fieldData<<3 | 2, 0x81, 0x80, 0x80, 0x02}, errTooLong},
		{"unknown field of 2^63 bytes", []byte{13<<3 | 2, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01}, errTooLong},
	} {
		t.Run(c.name, func(t *testing.T) {
			wire := append([]byte{fieldFrames<<3 | 2, byte(len(c.frame))}, c.frame...)
			wire = append(wire, fieldFrames<<3|2, 0) // a good one behind, not to be run into
			for n := 1; n <= len(wire); n++ {
				_, err := decode(cut(new(buf.Pool), wire, n))
				require.ErrorIs(t, err, c.want)
			}
		})
	}
}

func TestDecodeRefusesTooManyFrames(t *testing.T) {
	wire := bytes.Repeat([]byte{fieldFrames<<3 | 2, 0}, maxFrames)
	got, err := decode(cut(new(buf.Pool), wire, 100))
	require.NoError(t, err)
	require.Len(t, got, maxFrames)
	_, err = decode(cut(new(buf.Pool), append(wire, wire[:2]...), 100))
	require.ErrorIs(t, err, errTooLong)
}

func TestNoBiggerFrameThanThePeerTakes(t *testing.T) {
	require.NoError(t, (&Frame{Body: make([]byte, MaxBody), Data: Static(make([]byte, MaxData))}).checkLimits())
	require.ErrorIs(t, (&Frame{Body: make([]byte, MaxBody+1)}).checkLimits(), errTooLong)
	require.ErrorIs(t, (&Frame{Data: Static(make([]byte, MaxData+1))}).checkLimits(), errTooLong)
}

// TestFill: what goes into one packet.
func TestFill(t *testing.T) {
	small := func() *item { return new(item) }
	body := func(n int) *item { return &item{frame: Frame{Body: make([]byte, n)}} }
	data := func(n int) *item {
		it := new(item)
		new(sender).load(it, Data{bufs: mem.BufferSlice{mem.SliceBuffer(make([]byte, n))}})
		return it
	}
	gone := func() *item {
		it := new(item)
		it.drop()
		return it
	}
	many := make([]*item, maxFrames+5)
	for i := range many {
		many[i] = small()
	}
	for _, c := range []struct {
		name       string
		queue      []*item
		full, rest int
	}{
		{"ends with the first that has long data", []*item{small(), data(1), data(minLent), small()}, 3, 1},
		{"as much short data as allowed", []*item{data(7000), data(7000), data(7000), data(7000), data(7000), data(7000), data(7000), data(7000), data(7000), data(7000)}, 9, 1},
		{"leaves out what was withdrawn", []*item{gone(), small(), gone()}, 1, 0},
		{"no more frames than allowed", many, maxFrames, 5},
		{"no more bytes than allowed", []*item{body(40 << 10), body(40 << 10)}, 1, 1},
		{"one large alone", []*item{body(MaxBody), small()}, 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			full, rest := fill(nil, c.queue)
			require.Len(t, full, c.full)
			require.Len(t, rest, c.rest)
		})
	}
}

// FuzzCodec compares with generated code on arbitrary bytes in arbitrary cuts.
func FuzzCodec(f *testing.F) {
	for _, fr := range frames() {
		wire, _ := proto.Marshal(packet(&Frame{ID: 5}, fr, fr))
		f.Add(wire, 3)
	}
	f.Add([]byte{fieldFrames<<3 | 2, 15, fieldData<<3 | 2, 1, 'a', fieldData<<3 | 2, 1, 'b', fieldID << 3, 1, 13<<3 | 5, 1, 2, 3, 4, 9 << 3, 0}, 1)
	var pool buf.Pool
	f.Fuzz(func(t *testing.T, wire []byte, n int) {
		if len(wire) > 1<<16 {
			return
		}
		in := cut(&pool, wire, 1+int(uint(n)%64))
		got, err := decode(in)
		in.Free()
		var want ionpb.Packet
		protoErr := proto.Unmarshal(wire, &want)
		if err != nil {
			// We are stricter in two points: groups and limits.
			if protoErr == nil && !errors.Is(err, errMalformed) && !errors.Is(err, errTooLong) {
				t.Fatalf("protobuf takes what we refuse: %v", err)
			}
			return
		}
		if protoErr != nil {
			t.Fatalf("protobuf refuses what we take: %v", protoErr)
		}
		want.ProtoReflect().SetUnknown(nil)
		for i, m := range want.Frames {
			m.ProtoReflect().SetUnknown(nil)
			if !proto.Equal(message(got[i]), m) {
				t.Fatalf("decoded %v, protobuf says %v", message(got[i]), m)
			}
			got[i].Data.Ref() // encode takes one hold
			out, err := encode(got[i])
			if err != nil {
				t.Fatal(err)
			}
			var again ionpb.Packet
			if err := proto.Unmarshal(out, &again); err != nil || !proto.Equal(again.Frames[0], m) {
				t.Fatalf("encoded again: %v, %v", &again, err)
			}
			got[i].Data.Release()
		}
	})
}
