package trace

import (
	"bytes"
	"io"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
)

// uncompressed is the items of a trace.
func uncompressed(t testing.TB, b []byte) []byte {
	t.Helper()
	r, err := zstd.NewReader(bytes.NewReader(b[len(magic):]))
	require.NoError(t, err)
	defer r.Close()
	items, err := io.ReadAll(r)
	if err != nil {
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	}
	return items
}

// compressed is a trace of items.
func compressed(t testing.TB, items []byte) []byte {
	t.Helper()
	b := bytes.NewBufferString(magic)
	w, err := zstd.NewWriter(b, zstd.WithEncoderConcurrency(1))
	require.NoError(t, err)
	_, err = w.Write(items)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}
