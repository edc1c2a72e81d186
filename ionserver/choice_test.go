package ionserver

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/ionserver/ionpb"
)

func TestChoices(t *testing.T) {
	var k choices
	now := time.Unix(1000, 0)
	_, known, old := k.get(7, now)
	require.False(t, known)
	first := choice{ionpb.Consistency_SESSION, 2, 1 << 20}
	k.learn(7, first, old, now)
	got, known, _ := k.get(7, now.Add(choiceLife))
	require.True(t, known)
	require.Equal(t, first, got)
	_, known, _ = k.get(7, now.Add(choiceLife+1))
	require.False(t, known, "others may have changed it")

	k.changed(7, func(c *choice) { c.mode = ionpb.Consistency_STRONG }, now)
	k.learn(7, first, old, now)
	got, _, _ = k.get(7, now)
	require.Equal(t, choice{ionpb.Consistency_STRONG, 2, 1 << 20}, got, "an answer of before the change")
	k.changed(7, nil, now)
	_, known, _ = k.get(7, now)
	require.False(t, known, "a change of which nobody knows whether it was made")
	k.changed(7, func(c *choice) { c.mode = ionpb.Consistency_COMMIT_MODE }, now)
	_, known, _ = k.get(7, now)
	require.False(t, known, "a change of one part of what is not known")

	for h := range uint64(3 * maxChoices) {
		_, _, n := k.get(h, now)
		k.learn(h, choice{}, n, now)
		require.LessOrEqual(t, len(k.known), maxChoices)
	}
}

func TestChoiceOf(t *testing.T) {
	c := choice{ionpb.Consistency_COMMIT_MODE, 3, 8 << 20}
	xs := c.xattrs()
	require.Len(t, xs, 3)
	values := make([][]byte, 3)
	for i, x := range xs {
		require.Equal(t, choiceXattrs[i], x.Name)
		values[i] = append(x.Value, 0) // as a string of C
	}
	require.Equal(t, c, choiceOf(values))
	require.Equal(t, choice{}, choiceOf(make([][]byte, 3)))
	require.Empty(t, choice{}.xattrs())
	require.Equal(t, choice{mode: ionpb.Consistency_STRONG}, choiceOf([][]byte{[]byte("weak"), []byte("-1"), []byte("x")}), "what makes no sense")
}
