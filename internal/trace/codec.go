package trace

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"
)

// magic is the first line of a trace.
const magic = "zoidfs trace 1\n"

// Limits of what is written and read.
const (
	maxItem    = 64 << 10
	maxPath    = 8 << 10
	maxStrings = 1 << 16
	maxWindow  = 8 << 20
	maxProcs   = 1 << 20
	maxFiles   = 1 << 22
)

// Kinds of items.
const (
	kindHeader  = 'H'
	kindProcess = 'P'
	kindFile    = 'F'
	kindString  = 'S'
	kindReset   = 'R'
	kindCall    = 'C'
	kindEnd     = 'E'
)

// Bits of the fields of a call, in the order in which they come.
const (
	hasProc = 1 << iota
	hasFile
	hasOpen
	hasStart
	hasTook
	hasOff
	hasLen
	hasN
	hasArg
	hasMode
	hasErrno
	hasPath
	hasTo
	allFields = 1<<iota - 1
)

// Writer writes a trace.
type Writer struct {
	count   counter
	zip     *zstd.Encoder
	item    []byte
	strings map[string]uint64
	last    int64 // start of the call before
	calls   uint64
}

// counter counts what reaches the writer below.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// NewWriter begins a trace on w. Close must be called, and does not close w.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	t := &Writer{count: counter{w: w}, strings: make(map[string]uint64), last: h.Started}
	if _, err := io.WriteString(&t.count, magic); err != nil {
		return nil, err
	}
	var err error
	t.zip, err = zstd.NewWriter(&t.count, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	if err != nil {
		return nil, err
	}
	return t, t.json(kindHeader, h)
}

// Written is the number of bytes that were written below.
func (t *Writer) Written() int64 { return t.count.n }

// put writes an item.
func (t *Writer) put(kind byte, body []byte) error {
	if len(body) >= maxItem {
		return errors.New("trace: an item is too long")
	}
	head := append(binary.AppendUvarint(make([]byte, 0, 8), uint64(len(body)+1)), kind)
	if _, err := t.zip.Write(head); err != nil {
		return err
	}
	_, err := t.zip.Write(body)
	return err
}

func (t *Writer) json(kind byte, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return t.put(kind, b)
}

// Process says who a number stands for.
func (t *Writer) Process(p Process) error { return t.json(kindProcess, p) }

// File says what a handle is called.
func (t *Writer) File(handle uint64, path string) error {
	if err := t.room(); err != nil {
		return err
	}
	s, err := t.string(path)
	if err != nil {
		return err
	}
	return t.put(kindFile, binary.AppendUvarint(binary.AppendUvarint(nil, handle), s))
}

// room sees to it that two more strings can be numbered.
func (t *Writer) room() error {
	if len(t.strings)+2 <= maxStrings {
		return nil
	}
	clear(t.strings)
	return t.put(kindReset, nil)
}

// string returns the number of a string, defining it if it is new.
func (t *Writer) string(s string) (uint64, error) {
	if s == "" {
		return 0, nil
	}
	if len(s) > maxPath {
		s = s[:maxPath]
	}
	if n, ok := t.strings[s]; ok {
		return n, nil
	}
	n := uint64(len(t.strings) + 1)
	t.strings[s] = n
	return n, t.put(kindString, []byte(s))
}

// Call records one.
func (t *Writer) Call(c *Call) error {
	if err := t.room(); err != nil {
		return err
	}
	path, err := t.string(c.Path)
	if err != nil {
		return err
	}
	to, err := t.string(c.To)
	if err != nil {
		return err
	}
	t.item = t.appendCall(t.item[:0], c, path, to)
	t.last = c.Start
	t.calls++
	return t.put(kindCall, t.item)
}

func (t *Writer) appendCall(b []byte, c *Call, path, to uint64) []byte {
	values := [...]uint64{
		uint64(c.Proc), c.File, c.Open, zigzag(c.Start - t.last), uint64(c.End - c.Start), zigzag(c.Off), zigzag(c.Len), zigzag(c.N),
		uint64(c.Arg), uint64(c.Mode), uint64(c.Errno), path, to,
	}
	fields := uint64(0)
	for i, v := range values {
		if v != 0 {
			fields |= 1 << i
		}
	}
	b = binary.AppendUvarint(append(b, byte(c.Op)), fields)
	for _, v := range values {
		if v != 0 {
			b = binary.AppendUvarint(b, v)
		}
	}
	return b
}

func zigzag(v int64) uint64   { return uint64(v)<<1 ^ uint64(v>>63) }
func unzigzag(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }

// Flush makes what was written readable.
func (t *Writer) Flush() error { return t.zip.Flush() }

// Close ends the trace. It fills in Footer.Calls.
func (t *Writer) Close(f Footer) error {
	f.Calls = t.calls
	return errors.Join(t.json(kindEnd, f), t.zip.Close())
}
