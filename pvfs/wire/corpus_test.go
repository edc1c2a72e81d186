package wire

import (
	"bufio"
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// captured is one line of testdata/captured.jsonl.gz: a message that was seen
// between OrangeFS programs, with what an independent decoder made of it.
type captured struct {
	From   string   `json:"from"` // capture and message number
	Mode   Mode     `json:"mode"`
	Tag    int64    `json:"tag"`
	Bad    string   `json:"bad"`  // why it is no message
	Kind   string   `json:"kind"` // request or response
	Op     string   `json:"op"`
	Status Status   `json:"status"`
	Pads   [][2]int `json:"pads"`   // offset and length of undefined bytes
	Fields [][3]any `json:"fields"` // name, type, value; in some messages only
	Hex    string   `json:"hex"`
	b      []byte   // of Hex
}

func corpus(tb testing.TB) []captured {
	tb.Helper()
	f, err := os.Open("testdata/captured.jsonl.gz")
	require.NoError(tb, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	require.NoError(tb, err)
	var out []captured
	lines := bufio.NewScanner(z)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var m captured
		d := json.NewDecoder(strings.NewReader(lines.Text()))
		d.UseNumber()
		require.NoError(tb, d.Decode(&m))
		m.b, err = hex.DecodeString(m.Hex)
		require.NoError(tb, err)
		out = append(out, m)
	}
	require.NoError(tb, lines.Err())
	require.Len(tb, out, 2129)
	return out
}

// masked is b with the pads zeroed.
func masked(b []byte, pads [][2]int) []byte {
	b = append([]byte(nil), b...)
	for _, p := range pads {
		clear(b[p[0] : p[0]+p[1]])
	}
	return b
}

// roundTrip decodes a payload of either kind and encodes it again.
func roundTrip(kind string, b []byte) (body any, op Op, status Status, again []byte, err error) {
	if kind == "request" {
		h, req, err := DecodeRequest(b)
		if err != nil {
			return nil, h.Op, 0, nil, err
		}
		return req, h.Op, 0, AppendRequest(nil, &h.Cap, h.Hints, req), nil
	}
	op, status, resp, err := DecodeResponse(b)
	if err != nil {
		return nil, op, status, nil, err
	}
	return resp, op, status, AppendResponse(nil, op, status, resp), nil
}

// TestCapturedMessages decodes every captured message to its last byte and
// encodes it to the same bytes.
func TestCapturedMessages(t *testing.T) {
	seen := map[string]int{}
	refused := 0
	for _, m := range corpus(t) {
		if m.Bad != "" || m.Hex[:8] != "581b0000" { // 7000
			_, _, _, _, err := roundTrip("request", m.b)
			require.Error(t, err, m.From)
			refused++
			continue
		}
		_, op, status, again, err := roundTrip(m.Kind, m.b)
		require.NoError(t, err, "%s %s %s", m.From, m.Op, m.Kind)
		require.Equal(t, strings.ToLower(m.Op), op.String(), m.From)
		require.Equal(t, m.Status, status, m.From)
		require.Equal(t, masked(m.b, m.Pads), masked(again, m.Pads), "%s %s %s", m.From, m.Op, m.Kind)
		require.Equal(t, masked(again, m.Pads), again, "%s: pads go out as zeros", m.From)
		seen[m.Op+" "+m.Kind]++
	}
	require.Equal(t, 3, refused, "trailing bytes, unknown op, other version")
	require.Len(t, seen, 66)
}
