package trace

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/klauspost/compress/zstd"

	"github.com/zoidfs/zoidfs/internal/consistency"
)

// Trace is what one mount recorded.
type Trace struct {
	Header
	Footer
	Procs []Process
	Files map[uint64]string // what handles were called when they were seen first
	Calls []Call            // as they stand in the file

	// Cut says that the end is missing: the mount died, or is still recording.
	Cut bool
}

// ErrTooMany is returned for a trace of more calls than were allowed.
var ErrTooMany = errors.New("too many calls to look at at once")

// Decode reads a trace, keeping the calls for which keep, if it is not nil, is
// true, at most max of them; keep sees each call once, in order, with the trace
// as far as it was read. The calls of an ended part are returned even if the
// end is missing; anything else that is wrong is an error.
func Decode(r io.Reader, max int, keep func(*Trace, *Call) bool) (*Trace, error) {
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(r, head); err != nil || string(head) != magic {
		return nil, errors.New("not a trace of zoidfs, version 1")
	}
	zip, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	defer zip.Close()
	d := decoder{in: bufio.NewReaderSize(zip, maxItem), max: max, keep: keep}
	for !d.ended {
		kind, body, err := d.item()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			d.Cut = true
			break
		}
		if err == nil {
			err = d.take(kind, body)
		}
		if err != nil {
			return nil, fmt.Errorf("item %d: %w", d.items, err)
		}
	}
	if !d.begun {
		return nil, errors.New("the trace ends before its header")
	}
	if d.ended {
		if _, err := d.in.ReadByte(); !errors.Is(err, io.EOF) {
			return nil, errors.New("bytes follow the end of the trace")
		}
	}
	return &d.Trace, nil
}

type decoder struct {
	Trace
	in      *bufio.Reader
	max     int
	keep    func(*Trace, *Call) bool
	buf     [maxItem]byte
	strings []string
	last    int64 // start of the call before
	items   int
	calls   uint64
	begun   bool
	ended   bool
}

// item reads the next item; io.EOF or io.ErrUnexpectedEOF where the stream ends.
func (d *decoder) item() (kind byte, body []byte, err error) {
	n, err := binary.ReadUvarint(d.in)
	if err != nil {
		return 0, nil, err
	}
	d.items++
	if n == 0 || n > maxItem {
		return 0, nil, fmt.Errorf("%d bytes", n)
	}
	if _, err := io.ReadFull(d.in, d.buf[:n]); err != nil {
		return 0, nil, err
	}
	return d.buf[0], d.buf[1:n], nil
}

func (d *decoder) take(kind byte, b []byte) error {
	if !d.begun && kind != kindHeader {
		return errors.New("the header is missing")
	}
	switch kind {
	case kindHeader:
		if d.begun {
			return errors.New("a second header")
		}
		d.begun = true
		err := json.Unmarshal(b, &d.Header)
		d.last = d.Started
		return err
	case kindEnd:
		d.ended = true
		if err := json.Unmarshal(b, &d.Footer); err != nil {
			return err
		}
		if d.Footer.Calls != d.calls {
			return fmt.Errorf("%d calls, but the trace says %d", d.calls, d.Footer.Calls)
		}
	case kindProcess:
		return d.process(b)
	case kindFile:
		return d.file(b)
	case kindString:
		if len(b) == 0 || len(b) > maxPath || len(d.strings) == maxStrings {
			return errors.New("a string too many or of a wrong length")
		}
		d.strings = append(d.strings, string(b))
	case kindReset:
		d.strings = nil
		return (&fields{b: b}).done()
	case kindCall:
		return d.call(b)
	default:
		return fmt.Errorf("of unknown kind %q", kind)
	}
	return nil
}

func (d *decoder) process(b []byte) error {
	var p Process
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	if int(p.ID) != len(d.Procs)+1 || p.ID > maxProcs {
		return fmt.Errorf("process %d is not the next one", p.ID)
	}
	d.Procs = append(d.Procs, p)
	return nil
}

func (d *decoder) file(b []byte) error {
	f := fields{b: b}
	handle := f.uvarint(^uint64(0))
	path, ok := d.string(f.uvarint(maxStrings))
	if err := f.done(); err != nil {
		return err
	}
	if d.Files == nil {
		d.Files = make(map[uint64]string)
	}
	if !ok || len(d.Files) == maxFiles {
		return errors.New("a file without a name, or one too many")
	}
	d.Files[handle] = path
	return nil
}

// string returns the string with a number; 0 is none.
func (d *decoder) string(n uint64) (string, bool) {
	switch {
	case n == 0:
		return "", true
	case n > uint64(len(d.strings)):
		return "", false
	}
	return d.strings[n-1], true
}

func (d *decoder) call(b []byte) error {
	c, err := decodeCall(b, d.last, d.string)
	if err != nil {
		return err
	}
	if int(c.Proc) > len(d.Procs) {
		return fmt.Errorf("a call by process %d, of which nothing is known", c.Proc)
	}
	d.last = c.Start
	d.calls++
	if d.keep != nil && !d.keep(&d.Trace, &c) {
		return nil
	}
	if len(d.Trace.Calls) == d.max {
		return ErrTooMany
	}
	d.Trace.Calls = append(d.Trace.Calls, c)
	return nil
}

// fields reads the fields of an item, which look like the layout. The first
// failure sticks.
type fields struct {
	b   []byte
	err error
}

func (f *fields) fail(text string) {
	if f.err == nil {
		f.err = errors.New(text)
	}
}

func (f *fields) uvarint(max uint64) uint64 {
	v, n := binary.Uvarint(f.b)
	switch {
	case n <= 0 || n > 1 && f.b[n-1] == 0:
		f.fail("malformed number")
		return 0
	case v > max:
		f.fail("number out of range")
		return 0
	}
	f.b = f.b[n:]
	return v
}

func (f *fields) done() error {
	if len(f.b) > 0 {
		f.fail("trailing bytes")
	}
	return f.err
}

// decodeCall decodes the body of a call; last is the start of the one before.
func decodeCall(b []byte, last int64, path func(uint64) (string, bool)) (c Call, err error) {
	if len(b) == 0 {
		return c, errors.New("empty call")
	}
	c.Op = Op(b[0])
	if c.Op == 0 || c.Op >= numOps {
		return c, fmt.Errorf("unknown call %d", b[0])
	}
	f := fields{b: b[1:]}
	mask := f.uvarint(allFields)
	get := func(bit, max uint64) uint64 {
		if mask&bit == 0 {
			return 0
		}
		v := f.uvarint(max)
		if v == 0 {
			f.fail("a field that is 0")
		}
		return v
	}
	text := func(bit uint64) string {
		s, ok := path(get(bit, maxStrings))
		if !ok {
			f.fail("a string that is not there")
		}
		return s
	}
	const any = ^uint64(0)
	c.Proc = uint32(get(hasProc, maxProcs))
	c.File = get(hasFile, any)
	c.Open = get(hasOpen, any)
	c.Start = last + unzigzag(get(hasStart, any))
	c.End = c.Start + int64(get(hasTook, MaxOff))
	c.Off = unzigzag(get(hasOff, any))
	c.Len = unzigzag(get(hasLen, any))
	c.N = unzigzag(get(hasN, any))
	c.Arg = uint32(get(hasArg, 1<<32-1))
	c.Mode = consistency.Mode(get(hasMode, uint64(consistency.Laminated)))
	c.Errno = syscall.Errno(get(hasErrno, 4095))
	c.Path = text(hasPath)
	c.To = text(hasTo)
	for _, v := range []int64{c.Off, c.Len, c.N} {
		if v < 0 || v > MaxOff {
			f.fail("bytes out of range")
		}
	}
	if c.Start < 0 || c.Start > MaxOff || c.End < c.Start || c.End > MaxOff {
		f.fail("time out of range")
	}
	return c, f.done()
}
