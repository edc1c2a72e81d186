package ionserver

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestViewText(t *testing.T) {
	v := view{7, []string{"b:1", "a:2"}, 4096}
	got, err := parseView(v.String())
	require.NoError(t, err)
	require.Equal(t, v, got)
	for _, s := range []string{"", "1 2", "x 1 a", "1 x a", "1 2 a b", "-1 2 a"} {
		_, err := parseView(s)
		require.Error(t, err, s)
	}
}

func TestViewValidate(t *testing.T) {
	for _, c := range []struct {
		name string
		v    view
		ok   bool
	}{
		{"fine", view{0, []string{"self:1", "b:1"}, 1}, true},
		{"self is missing", view{0, []string{"b:1"}, 1}, false},
		{"twice", view{0, []string{"self:1", "b:1", "b:1"}, 1}, false},
		{"empty", view{0, []string{"self:1", ""}, 1}, false},
		{"comma", view{0, []string{"self:1", "b:1,c:1"}, 1}, false},
		{"no domain size", view{0, []string{"self:1"}, 0}, false},
		{"too long", view{0, []string{"self:1", strings.Repeat("x", 4000)}, 1}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.v.validate("self:1")
			require.Equal(t, c.ok, err == nil, err)
		})
	}
}

func TestDecideView(t *testing.T) {
	ab, ba, ac := []string{"a", "b"}, []string{"b", "a"}, []string{"a", "c"}
	ours := view{members: ab, domainSize: 1}
	for _, c := range []struct {
		name           string
		settled, claim view
		step           viewStep
		epoch          uint64
	}{
		{"nobody ever", view{}, view{}, viewClaim, 1},
		{"as before", view{3, ab, 1}, view{}, viewServe, 3},
		{"order of members does not matter", view{3, ba, 1}, view{}, viewServe, 3},
		{"another list before", view{3, ac, 1}, view{}, viewClaim, 4},
		{"another domain size before", view{3, ab, 2}, view{}, viewClaim, 4},
		{"ours is claimed", view{3, ac, 1}, view{4, ab, 1}, viewSettle, 4},
		{"first one is claimed", view{}, view{1, ab, 1}, viewSettle, 1},
		{"another's is claimed", view{3, ab, 1}, view{5, ac, 1}, viewClaim, 6},
	} {
		t.Run(c.name, func(t *testing.T) {
			step, epoch := decideView(c.settled, c.claim, ours)
			require.Equal(t, c.step, step)
			require.Equal(t, c.epoch, epoch)
		})
	}
}

func TestViewGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newViewGuard(5 * time.Second)
		ok, changed, err := g.May(time.Now())
		require.NoError(t, err)
		require.False(t, ok, "not seen yet")
		go g.Seen(time.Now())
		<-changed
		ok, _, _ = g.May(time.Now())
		require.True(t, ok)
		time.Sleep(5 * time.Second)
		ok, _, _ = g.May(time.Now())
		require.False(t, ok, "one look does not last for ever")
		g.Seen(time.Now().Add(-time.Second)) // a slow look counts from its begin
		time.Sleep(4 * time.Second)
		ok, _, _ = g.May(time.Now())
		require.False(t, ok)
		g.Refuse(errors.New("others have taken over"))
		g.Seen(time.Now())
		_, _, err = g.May(time.Now())
		require.ErrorIs(t, err, syscall.ESTALE, "a refusal is final")
	})
}
