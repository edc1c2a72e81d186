package collective

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
)

// someBacklog is domains of 100 bytes: how many are dirty of each, written so
// many seconds ago. None is no dirty ones.
func someBacklog(now time.Time, dirty []int64, age []int) (b Backlog) {
	for i, n := range dirty {
		if n > 0 {
			since := now.Add(-time.Duration(age[i]) * time.Second)
			b = append(b, Part{Extent: domainNo(i), Dirty: n, Since: since})
		}
	}
	return b
}

func domainNo(i int) extent.Extent { return extent.Extent{Off: int64(i) * 100, Len: 100} }

func domainsNo(numbers ...int) (out []extent.Extent) {
	for _, i := range numbers {
		out = append(out, domainNo(i))
	}
	return out
}

func TestBacklogFull(t *testing.T) {
	ages := make([]int, 6)
	for _, c := range []struct {
		name  string
		dirty []int64
		want  []extent.Extent
	}{
		{"nothing", nil, nil},
		{"not enough that are whole", []int64{100, 99, 99, 99, 100}, nil},
		{"enough", []int64{100, 99, 100, 0, 100}, domainsNo(0, 2, 4)},
		{"more than enough", []int64{100, 100, 100, 99, 100, 100}, domainsNo(0, 1, 2, 4)},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, someBacklog(time.Now(), c.dirty, ages).Full(300, 400))
		})
	}
}

func TestBacklogOld(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		name  string
		dirty []int64
		age   []int
		want  []extent.Extent
	}{
		{"none is old", []int64{100, 1}, []int{3, 3}, nil},
		{"what is old, soon old, or whole", []int64{1, 1, 1, 100}, []int{4, 2, 1, 0}, domainsNo(0, 1, 3)},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := someBacklog(now, c.dirty, c.age)
			require.Equal(t, c.want, b.Old(now.Add(-4*time.Second), now.Add(-2*time.Second)))
		})
	}
}

func TestBacklogHalf(t *testing.T) {
	now := time.Now()
	require.Empty(t, Half(nil))
	got := Half([]Backlog{
		someBacklog(now, []int64{50, 100, 0}, []int{9, 1, 0}),
		nil,
		someBacklog(now, []int64{90, 100, 60}, []int{2, 2, 3}),
	})
	require.Equal(t, [][]extent.Extent{domainsNo(1), nil, domainsNo(1)}, got, "whole ones first, 200 of 400 bytes")
	got = Half([]Backlog{someBacklog(now, []int64{60, 40, 30}, []int{1, 3, 2})})
	require.Equal(t, [][]extent.Extent{domainsNo(1, 2)}, got, "the oldest first, 70 of 130 bytes")
}
