package ionserver

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMarks: whom a node waits for when it starts under epoch 3 as a:1, and what
// it may remove then.
func TestMarks(t *testing.T) {
	for _, c := range []struct {
		name           string
		names          []string
		expected, past []string
	}{
		{name: "nothing", names: []string{"serving.a:1", "view.3", "0000000000000001", "session.3.a:1.x.1", "session.x.a:1.1.1", "session.3.1.1"}},
		{
			name:     "a restart",
			names:    []string{"session.3.a:1.a.1", "session.3.b:1.b.1", "session.3.a:1.c.2"},
			expected: []string{"session.3.a:1.a.1", "session.3.a:1.c.2"},
		},
		{
			name:     "a new view",
			names:    []string{"session.2.a:1.a.1", "session.2.10.0.0.9:1.b.1", "session.1.c:1.c.2", "session.3.b:1.d.1"},
			expected: []string{"session.2.a:1.a.1", "session.2.10.0.0.9:1.b.1", "session.1.c:1.c.2"},
		},
		{
			name:     "again, before the others have begun",
			names:    []string{"session.2.a:1.a.1", "session.3.a:1.d.1", "passed.3.a:1"},
			expected: []string{"session.3.a:1.d.1"},
		},
		{
			name:     "the view before has begun in part",
			names:    []string{"session.1.a:1.a.1", "session.2.b:1.b.1", "passed.2.b:1"},
			expected: []string{"session.2.b:1.b.1"},
		},
		{
			name:     "all have begun",
			names:    []string{"session.2.a:1.a.1", "session.3.a:1.d.1", "passed.3.a:1", "passed.3.b:1", "passed.2.c:1"},
			expected: []string{"session.3.a:1.d.1"},
			past:     []string{"session.2.a:1.a.1", "passed.3.a:1", "passed.3.b:1", "passed.2.c:1"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var m marks
			for _, n := range c.names {
				m.read(n)
			}
			var got []string
			for _, s := range m.expected(3, "a:1") {
				got = append(got, s.String())
			}
			require.Equal(t, c.expected, got)
			require.Equal(t, c.past, m.past(3, []string{"a:1", "b:1"}))
		})
	}
}
