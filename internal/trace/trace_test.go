package trace

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/consistency"
)

var head = Header{Node: "n0", Mountpoint: "/zfs", PID: 7, FSName: "tcp://a/b", FSID: 9, Consistency: consistency.Strong, Started: 1000}

// encode writes a trace of these calls by two processes.
func encode(t testing.TB, calls []Call, end bool) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, head)
	require.NoError(t, err)
	require.NoError(t, w.Process(Process{ID: 1, PID: 100, Job: "j", Rank: 3, Size: 4}))
	require.NoError(t, w.Process(Process{ID: 2, PID: 101, Command: "cp"}))
	require.NoError(t, w.File(5, "a/b"))
	for i := range calls {
		require.NoError(t, w.Call(&calls[i]))
	}
	require.NoError(t, w.Flush())
	if end {
		require.NoError(t, w.Close(Footer{Ended: 2000, Dropped: 1}))
	}
	require.Equal(t, int64(b.Len()), w.Written())
	return b.Bytes()
}

func decode(b []byte) (*Trace, error) { return Decode(bytes.NewReader(b), 1<<20, nil) }

var some = []Call{
	{Op: Open, Proc: 1, File: 5, Open: 1, Start: 1500, End: 1600, Path: "a/b", Arg: 2, Mode: consistency.Session},
	{Op: Write, Proc: 2, File: 5, Open: 1, Start: 1400, End: 1700, Off: 1 << 40, Len: 10, N: 10},
	{Op: Rename, Start: 1800, End: 1800, Path: "a/b", To: "c", Errno: syscall.ENOENT},
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	got, err := decode(encode(t, some, true))
	require.NoError(t, err)
	require.Equal(t, head, got.Header)
	require.Equal(t, Footer{Ended: 2000, Calls: 3, Dropped: 1}, got.Footer)
	require.Equal(t, some, got.Calls)
	require.False(t, got.Cut)
	require.Equal(t, "a/b", got.Name(&got.Calls[1]))
	p := got.Process(&got.Calls[0])
	require.Equal(t, "rank 3", p.Name())
	p = got.Process(&got.Calls[1])
	require.Equal(t, "cp[101]", p.Name())
	p = got.Process(&got.Calls[2])
	require.Equal(t, "unknown", p.Name())
}

func TestTraceWithoutAnEnd(t *testing.T) {
	whole := encode(t, some, false)
	got, err := decode(whole)
	require.NoError(t, err)
	require.True(t, got.Cut)
	require.Equal(t, some, got.Calls)
	for n := len(magic); n < len(whole); n++ {
		got, err := decode(whole[:n])
		if err == nil {
			require.True(t, got.Cut)
			require.Equal(t, some[:len(got.Calls)], append([]Call{}, got.Calls...))
		}
	}
}

func TestBadTraces(t *testing.T) {
	item := func(kind byte, body string) string { return string([]byte{byte(len(body) + 1), kind}) + body }
	begin := item('H', `{"started":5}`)
	for text, want := range map[string]string{
		"":                                    "ends before its header",
		item('P', `{"id":1}`):                 "header is missing",
		begin + begin:                         "second header",
		begin + "\x00":                        "0 bytes",
		begin + "\xff\xff\x7f":                "bytes",
		begin + item('X', ""):                 "unknown kind",
		begin + item('P', `{"id":2}`):         "not the next",
		begin + item('P', `x`):                "invalid character",
		begin + item('F', "\x01\x01"):         "without a name",
		begin + item('S', ""):                 "wrong length",
		begin + item('R', "x"):                "trailing bytes",
		begin + item('C', ""):                 "empty call",
		begin + item('C', "\xf0\x00"):         "unknown call",
		begin + item('C', "\x0f\x01\x01"):     "of which nothing is known",
		begin + item('C', "\x0f\x20\x01"):     "bytes out of range",
		begin + item('C', "\x0f\x08\x63"):     "time out of range",
		begin + item('C', "\x0f\x20\x80\x00"): "malformed number",
		begin + item('C', "\x0f\x80\x10\x01"): "a string that is not there",
		begin + item('C', "\x0f\x80\x04\x07"): "number out of range",
		begin + item('C', "\x0f\x00x"):        "trailing bytes",
		begin + item('E', `{"calls":2}`):      "but the trace says 2",
		begin + item('E', `{}`) + "x":         "bytes follow",
	} {
		_, err := decode(compressed(t, []byte(text)))
		require.ErrorContains(t, err, want, "%q", text)
		require.NotContains(t, err.Error(), "\n")
	}
	_, err := decode([]byte("something else that is long enough"))
	require.ErrorContains(t, err, "not a trace")
}

func TestTooManyCalls(t *testing.T) {
	b := encode(t, some, true)
	_, err := Decode(bytes.NewReader(b), 2, nil)
	require.ErrorIs(t, err, ErrTooMany)
	got, err := Decode(bytes.NewReader(b), 2, func(tr *Trace, c *Call) bool { return tr.Name(c) == "a/b" && c.Op != Rename })
	require.NoError(t, err)
	require.Equal(t, some[:2], got.Calls)
}

// TestManyStrings needs more strings than are remembered at a time.
func TestManyStrings(t *testing.T) {
	var calls []Call
	for i := range maxStrings {
		name := fmt.Sprint(i)
		calls = append(calls, Call{Op: Rename, Start: int64(i), End: int64(i), Path: name, To: name + "x"})
	}
	got, err := decode(encode(t, calls, true))
	require.NoError(t, err)
	require.True(t, slices.Equal(calls, got.Calls))
}

func TestMerge(t *testing.T) {
	call := func(start int64) Call { return Call{Op: Fsync, Start: start, End: start + 5} }
	a := &Trace{Header: head, Calls: []Call{call(3), call(1)}}
	b := &Trace{Header: head, Calls: []Call{call(2)}}
	all, err := Merge([]*Trace{a, b})
	require.NoError(t, err)
	require.Equal(t, []At{{0, call(1)}, {1, call(2)}, {0, call(3)}}, all)
	b.FSID++
	_, err = Merge([]*Trace{a, b})
	require.ErrorContains(t, err, "different file systems")
	_, err = Merge(nil)
	require.Error(t, err)
}

func TestOps(t *testing.T) {
	for o := Op(1); o < numOps; o++ {
		got, err := ParseOp(o.String())
		require.NoError(t, err)
		require.Equal(t, o, got)
	}
	_, err := ParseOp("")
	require.Error(t, err)
	require.Equal(t, "op99", Op(99).String())
	require.Equal(t, "open a/b O_RDWR", some[0].String())
	require.Equal(t, "rename a/b to c: ENOENT", some[2].String())
}

// FuzzDecode decodes items, without the compression around them: what decodes
// is written and read again alike.
func FuzzDecode(f *testing.F) {
	f.Add(uncompressed(f, encode(f, some, true)))
	f.Add(uncompressed(f, encode(f, some, false)))
	f.Fuzz(func(t *testing.T, items []byte) {
		got, err := decode(compressed(t, items))
		if err != nil {
			require.False(t, strings.Contains(err.Error(), "\n"))
			return
		}
		var b bytes.Buffer
		w, err := NewWriter(&b, got.Header)
		require.NoError(t, err)
		for _, p := range got.Procs {
			require.NoError(t, w.Process(p))
		}
		for h, path := range got.Files {
			require.NoError(t, w.File(h, path))
		}
		for i := range got.Calls {
			require.NoError(t, w.Call(&got.Calls[i]))
		}
		require.NoError(t, w.Close(got.Footer))
		again, err := decode(b.Bytes())
		require.NoError(t, err)
		again.Footer.Calls, again.Cut = got.Footer.Calls, got.Cut
		require.Equal(t, got, again)
	})
}
