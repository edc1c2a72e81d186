package wire

import (
	"encoding/binary"
	"runtime/metrics"
	"testing"

	"github.com/stretchr/testify/require"
)

// seeds gives f up to three captured messages of every kind and size class.
func seeds(f *testing.F, kind string, add func(m *captured)) {
	f.Helper()
	seen := map[string]int{}
	for _, m := range corpus(f) {
		if m.Kind != kind || len(m.b) > 1024 {
			continue
		}
		if seen[m.Op]++; seen[m.Op] <= 3 {
			add(&m)
		}
	}
}

// allocated is the number of bytes allocated so far, small objects with delay.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// modest fails if f allocates far more than n bytes of input justify. What it
// is to find are lengths believed before they are checked; these are many MiB.
func modest(t *testing.T, n int, f func()) {
	before := allocated()
	f()
	if got := allocated() - before; got > uint64(64*n+1<<20) {
		t.Fatalf("%d bytes of input made %d bytes of garbage", n, got)
	}
}

// stable checks that what decodes is encoded to something that decodes to the
// same value and is encoded to the same bytes.
func stable(t *testing.T, b []byte, code func(b []byte) (v any, again []byte, err error)) {
	var v any
	var once []byte
	var err error
	modest(t, len(b), func() { v, once, err = code(b) })
	if err != nil {
		return
	}
	require.LessOrEqual(t, len(once), len(b))
	w, twice, err := code(once)
	require.NoError(t, err)
	require.Equal(t, v, w)
	require.Equal(t, once, twice)
}

func FuzzRequest(f *testing.F) {
	seeds(f, "request", func(m *captured) { f.Add(m.b) })
	f.Fuzz(func(t *testing.T, b []byte) {
		stable(t, b, func(b []byte) (any, []byte, error) {
			h, m, err := DecodeRequest(b)
			if err != nil {
				return nil, nil, err
			}
			return [2]any{h, m}, AppendRequest(nil, &h.Cap, h.Hints, m), nil
		})
	})
}

func FuzzResponse(f *testing.F) {
	seeds(f, "response", func(m *captured) { f.Add(m.b) })
	f.Fuzz(func(t *testing.T, b []byte) {
		stable(t, b, func(b []byte) (any, []byte, error) {
			op, status, m, err := DecodeResponse(b)
			if err != nil {
				return nil, nil, err
			}
			return m, AppendResponse(nil, op, status, m), nil
		})
	})
}

func FuzzAttr(f *testing.F) {
	seeds(f, "response", func(m *captured) {
		if m.Op == "GETATTR" && m.Status == 0 {
			f.Add(m.b[16:])
		}
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		stable(t, b, func(b []byte) (any, []byte, error) {
			a, err := DecodeAttr(b)
			return a, AppendAttr(nil, &a), err
		})
	})
}

func FuzzDist(f *testing.F) {
	for _, d := range []Dist{
		NewSimpleStripe(65536), {Name: BasicDist}, {Name: VarstripDist, Strips: "0:16384;1:32k"},
		{Name: TwodStripe, StripSize: 65536, NumGroups: 2, GroupStripFactor: 256},
	} {
		f.Add(AppendDist(nil, &d))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		stable(t, b, func(b []byte) (any, []byte, error) {
			d, err := DecodeDist(b)
			return d, AppendDist(nil, &d), err
		})
	})
}

// securityBlock is capability, hints and credential as one payload.
type securityBlock struct {
	Cap   Capability
	Hints []Hint
	Cred  Credential
}

func (s *securityBlock) layout(c *codec) {
	s.Cap.layout(c)
	layoutHints(c, &s.Hints)
	s.Cred.layout(c)
}

func FuzzSecurity(f *testing.F) {
	for _, s := range []securityBlock{
		{},
		{Cap: Capability{Issuer: "S:s0", Signature: []byte{1}, Ops: MayAll, Handles: []Handle{1, 2}},
			Hints: []Hint{ObjectHint(7), {Type: HintUnknown, Name: "a", Text: "b"}, {Type: HintOwnerGID, Value: 5}},
			Cred:  Credential{Groups: []uint32{1, 2, 3}, Issuer: "C:x", Signature: []byte{2}, Certificate: []byte{3, 4}}},
	} {
		c := encoder(nil)
		s.layout(c)
		f.Add(c.b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		stable(t, b, func(b []byte) (any, []byte, error) {
			var s securityBlock
			d, e := decoder(b), encoder(nil)
			s.layout(d)
			if err := d.end(); err != nil {
				return nil, nil, err
			}
			s.layout(e)
			return s, e.b, nil
		})
	})
}

func FuzzHeader(f *testing.F) {
	f.Add(Header{Unexpected, 1, 100}.Append(nil))
	f.Add(Header{Rend, 77, MaxMessage}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := DecodeHeader(b)
		if err != nil {
			return
		}
		require.Equal(t, b[:HeaderSize], h.Append(nil))
		require.True(t, h.Size >= 0 && h.Size <= MaxMessage)
		require.Positive(t, h.Tag)
	})
}

// FuzzDatatype also walks the type: every step ends, goes on, and stays within
// the bounds.
func FuzzDatatype(f *testing.F) {
	for _, d := range []Datatype{
		Contiguous(100), must(HVector(3, 10, 100)), must(HVectorAt(5, 3, 10, 100)),
		must(HIndexed(pieces(100, 50, 70, 3, 140, 10))),
		{Records: []TypeRecord{byteRecord()}},
	} {
		c := encoder(nil)
		d.layout(c)
		f.Add(c.b, int64(5), int64(1000))
	}
	f.Fuzz(func(t *testing.T, b []byte, off, size int64) {
		var last Datatype
		stable(t, b, func(b []byte) (any, []byte, error) {
			var d Datatype
			c, e := decoder(b), encoder(nil)
			d.layout(c)
			if err := c.end(); err != nil {
				return nil, nil, err
			}
			last = d
			d.layout(e)
			return d, e.b, nil
		})
		modest(t, len(b), func() {
			c, err := last.Cursor(off, size)
			if err != nil {
				return
			}
			within := c.Bounds()
			for range 100 {
				left := c.Left()
				e, ok := c.Next()
				if !ok {
					require.Zero(t, left)
					break
				}
				require.Positive(t, e.Len)
				require.Equal(t, left-e.Len, c.Left())
				require.GreaterOrEqual(t, e.Off, int64(0))
				require.True(t, within.Contains(e), "%v in %v", e, within)
				c.Skip(left / 3)
			}
		})
	})
}

// TestHostileLengths puts large numbers in every place of captured messages.
func TestHostileLengths(t *testing.T) {
	seen := map[string]int{}
	tried := 0
	for _, m := range corpus(t) {
		key := m.Op + m.Kind
		if seen[key]++; m.Kind == "" || seen[key] > 2 || len(m.b) > 1000 {
			continue
		}
		b := append([]byte(nil), m.b...)
		for i := 8; i+4 <= len(b); i++ {
			for _, n := range []uint32{0xffffffff, 0x7fffffff, 0x00100000, 8192} {
				binary.LittleEndian.PutUint32(b[i:], n)
				modest(t, len(b), func() { _, _, _, _, _ = roundTrip(m.Kind, b) })
				tried++
			}
			copy(b[i:], m.b[i:i+4])
		}
	}
	require.Greater(t, tried, 10000)
}
