package history

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// line is one line of a file: {"run": header} begins a history, any other
// line is an event of it.
type line struct {
	Run *Header `json:"run"`
}

// Writer writes histories as JSON lines.
type Writer struct {
	out *bufio.Writer
	gz  *gzip.Writer // nil if not compressed
}

// NewWriter returns a Writer on w, which compresses if asked to.
func NewWriter(w io.Writer, compress bool) *Writer {
	if !compress {
		return &Writer{out: bufio.NewWriter(w)}
	}
	gz := gzip.NewWriter(w)
	return &Writer{out: bufio.NewWriter(gz), gz: gz}
}

// Write appends a history.
func (w *Writer) Write(h History) error {
	enc := json.NewEncoder(w.out)
	if err := enc.Encode(line{&h.Header}); err != nil {
		return err
	}
	for i := range h.Events {
		if err := enc.Encode(&h.Events[i]); err != nil {
			return err
		}
	}
	return nil
}

// Close writes what is buffered. It does not close the writer below.
func (w *Writer) Close() error {
	err := w.out.Flush()
	if w.gz != nil {
		err = errors.Join(err, w.gz.Close())
	}
	return err
}

// Reader reads what a Writer wrote, compressed or not.
type Reader struct {
	in   *bufio.Reader
	next *Header // of the history that the last Read ended at
	line int
}

// NewReader returns a Reader on r.
func NewReader(r io.Reader) (*Reader, error) {
	in := bufio.NewReader(r)
	if magic, err := in.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		gz, err := gzip.NewReader(in)
		if err != nil {
			return nil, err
		}
		in = bufio.NewReader(gz)
	}
	return &Reader{in: in}, nil
}

// Read returns the next history, io.EOF after the last.
func (r *Reader) Read() (History, error) {
	var h History
	begun := r.next != nil
	if begun {
		h.Header, r.next = *r.next, nil
	}
	for {
		text, err := r.in.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(text) == 0 {
			if begun {
				return h, h.validate()
			}
			return h, io.EOF
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return h, err
		}
		r.line++
		var l line
		var e Event
		if err := json.Unmarshal(text, &l); err != nil {
			return h, fmt.Errorf("line %d: %w", r.line, err)
		}
		switch {
		case l.Run != nil && begun:
			r.next = l.Run
			return h, h.validate()
		case l.Run != nil:
			h.Header, begun = *l.Run, true
		case !begun:
			return h, fmt.Errorf("line %d: an event before the first run", r.line)
		default:
			d := json.NewDecoder(bytes.NewReader(text))
			d.DisallowUnknownFields()
			if err := d.Decode(&e); err != nil {
				return h, fmt.Errorf("line %d: %w", r.line, err)
			}
			h.Events = append(h.Events, e)
		}
	}
}

// Limits of what is read: numbers of processes and of pieces that a read saw.
const (
	maxProcs = 1000
	maxSeen  = 1 << 16
)

// valid reports whether the range lies in a file.
func (r Range) valid() bool {
	return r.Off >= 0 && r.Len >= 0 && r.Off < maxOff && r.Len < maxOff-r.Off
}

// validate refuses what the checkers cannot index by.
func (h *History) validate() error {
	for i, e := range h.Events {
		if e.Proc < 0 || e.Proc > maxProcs || e.Call > e.Return || e.N < 0 || e.N > maxOff || !e.span().valid() || !e.Own.valid() {
			return fmt.Errorf("%s: event %d: a number is out of range", h.Program, i)
		}
		if slices.ContainsFunc(e.Seen, func(r Run) bool { return r.Len < 0 || r.Len > maxOff/maxSeen }) || len(e.Seen) > maxSeen {
			return fmt.Errorf("%s: event %d: what was seen makes no sense", h.Program, i)
		}
		for _, a := range e.After {
			if a < 0 || a >= i {
				return fmt.Errorf("%s: event %d comes after event %d, which is not before it", h.Program, i, a)
			}
		}
	}
	return nil
}
