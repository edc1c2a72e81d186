package collective

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/extent"
)

func members(n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("10.0.0.%d:7000", i))
	}
	return out
}

func TestNewPlacementRefuses(t *testing.T) {
	for _, c := range []struct {
		name    string
		members []string
		size    int64
	}{
		{"no members", nil, 1},
		{"a member twice", []string{"a:1", "b:1", "a:1"}, 1},
		{"domain of no bytes", []string{"a:1"}, 0},
		{"negative domain", []string{"a:1"}, -4},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := NewPlacement(c.members, c.size)
			require.Error(t, err)
		})
	}
}

func TestHomeOwnsFirstDomain(t *testing.T) {
	p, err := NewPlacement(members(5), 4096)
	require.NoError(t, err)
	for h := range uint64(1000) {
		require.Equal(t, p.Home(h), p.Owner(h, 0))
		require.Equal(t, p.Home(h), p.Owner(h, 4095))
	}
}

// TestOrderOfMembersDoesNotMatter: two parties that learned the view in
// different order agree on every owner.
func TestOrderOfMembersDoesNotMatter(t *testing.T) {
	m := members(6)
	p, err := NewPlacement(m, DefaultDomainSize)
	require.NoError(t, err)
	q := append([]string(nil), m...)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(q), func(i, j int) { q[i], q[j] = q[j], q[i] })
	o, err := NewPlacement(q, DefaultDomainSize)
	require.NoError(t, err)
	for h := range uint64(500) {
		off := int64(h) * DefaultDomainSize / 2
		require.Equal(t, m[p.Owner(h, off)], q[o.Owner(h, off)])
	}
}

// TestSpread: consecutive handles and consecutive domains of one file spread
// evenly; a departed member moves only what it owned.
func TestSpread(t *testing.T) {
	const n = 4
	m := members(n)
	p, err := NewPlacement(m, DefaultDomainSize)
	require.NoError(t, err)
	fewer, err := NewPlacement(m[:n-1], DefaultDomainSize)
	require.NoError(t, err)
	homes, owners := make([]int, n), make([]int, n)
	const keys = 20000
	for i := range uint64(keys) {
		h := p.Home(1<<62 + i)
		homes[h]++
		owners[p.Owner(42, int64(i)*DefaultDomainSize)]++
		if h != n-1 {
			require.Equal(t, h, fewer.Home(1<<62+i), "a handle moved although its home stayed")
		}
	}
	for i := range n {
		require.InEpsilon(t, keys/n, homes[i], 0.05)
		require.InEpsilon(t, keys/n, owners[i], 0.05)
	}
}

func TestSplit(t *testing.T) {
	p, err := NewPlacement(members(2), 100)
	require.NoError(t, err)
	for _, c := range []struct {
		name string
		in   extent.Extent
		want []extent.Extent
	}{
		{"empty", extent.Extent{Off: 5}, nil},
		{"inside one", extent.Extent{Off: 5, Len: 95}, []extent.Extent{{Off: 5, Len: 95}}},
		{"across", extent.Extent{Off: 99, Len: 102}, []extent.Extent{{Off: 99, Len: 1}, {Off: 100, Len: 100}, {Off: 200, Len: 1}}},
		{"at the largest offset", extent.Extent{Off: math.MaxInt64 - 1, Len: 1}, []extent.Extent{{Off: math.MaxInt64 - 1, Len: 1}}},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, p.Split(c.in)) })
	}
}
