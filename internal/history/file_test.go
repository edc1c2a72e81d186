package history

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFile(t *testing.T) {
	want := []History{
		parse(t, Strong, open2+"P write 1 0 10 =1; Q read 1 0 10 : 3x1 7x0"),
		parse(t, Session, "P open x 1 creat; P lock 1 0 5; P chmod 1 444"),
		{Header: Header{Program: "empty", Mode: Commit, Seed: 7, Round: 3}},
	}
	want[0].Events[2].After = []int{0, 1}
	for _, compress := range []bool{false, true} {
		var b bytes.Buffer
		w := NewWriter(&b, compress)
		for _, h := range want {
			require.NoError(t, w.Write(h))
		}
		require.NoError(t, w.Close())
		r, err := NewReader(&b)
		require.NoError(t, err)
		for _, h := range want {
			got, err := r.Read()
			require.NoError(t, err)
			require.Equal(t, h, got)
		}
		_, err = r.Read()
		require.ErrorIs(t, err, io.EOF)
	}
}

func TestBadFiles(t *testing.T) {
	const run = `{"run":{"program":"x","mode":"strong"}}` + "\n"
	for _, tt := range []struct{ name, text, err string }{
		{"event without a run", `{"op":"read"}`, "before the first run"},
		{"not JSON", run + "frob", "line 2"},
		{"an unknown field", run + `{"op":"read","frob":1}`, "frob"},
		{"after itself", run + `{"op":"read","after":[0]}`, "comes after event 0"},
		{"negative", run + `{"op":"read","off":-1}`, "out of range"},
		{"returned before it was called", run + `{"op":"read","call":5,"return":4}`, "out of range"},
		{"a negative run", run + `{"op":"read","seen":[{"n":-1,"v":1}]}`, "no sense"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := NewReader(bytes.NewReader([]byte(tt.text)))
			require.NoError(t, err)
			_, err = r.Read()
			require.ErrorContains(t, err, tt.err)
		})
	}
}

// FuzzReader requires that whatever is read can be checked.
func FuzzReader(f *testing.F) {
	f.Add([]byte(`{"run":{"program":"x","mode":"strong"}}` + "\n" + `{"p":0,"op":"open","fd":1,"name":"x","ino":1,"call":1,"return":2}` + "\n" +
		`{"p":0,"op":"write","fd":1,"len":10,"n":10,"v":1,"call":3,"return":4}` + "\n" + `{"p":1,"op":"stat","name":"x","ino":1,"n":10,"call":5,"return":6}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := NewReader(bytes.NewReader(b))
		if err != nil {
			return
		}
		for {
			h, err := r.Read()
			if errors.Is(err, io.EOF) || err != nil {
				return
			}
			if len(h.Events) < 20 {
				Check(h)
			}
		}
	})
}
