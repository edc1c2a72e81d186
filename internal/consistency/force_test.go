package consistency

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestInForce(t *testing.T) {
	for _, x := range []struct {
		name       string
		own, mount Mode
		want       Mode
		from       Source
	}{
		{"f", Default, Default, Strong, FromMount},
		{"f", Default, Session, Session, FromMount},
		{"f", Commit, Session, Commit, FromAttribute},
		{"f", Strong, Eventual, Strong, FromAttribute},
		{".f.shfp.1", Default, Session, Strong, FromName},
		{".f.shfp.1", Session, Session, Strong, FromName},
	} {
		mode, from := InForce(x.name, x.own, x.mount)
		require.Equal(t, x.want, mode, "%+v", x)
		require.Equal(t, x.from, from, "%+v", x)
	}
}

func TestHereInJSON(t *testing.T) {
	h := Here{Mode: Session, From: FromAttribute, Open: map[Mode]int{Commit: 2, Strong: 1}}
	b, err := json.Marshal(h)
	require.NoError(t, err)
	require.JSONEq(t, `{"mode":"session","from":"attribute","open":{"commit":2,"strong":1}}`, string(b))
	var got Here
	require.NoError(t, json.Unmarshal(b, &got))
	require.Equal(t, h, got)
	require.NoError(t, json.Unmarshal([]byte(`{"mode":"default"}`), &got))
	require.Equal(t, Default, got.Mode)
	require.ErrorContains(t, json.Unmarshal([]byte(`{"mode":"weak"}`), &got), `"weak"`)
	_, err = json.Marshal(Mode(77))
	require.Error(t, err)
}
