package ionserver

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs/fsck"
)

// TestUnlinkWhileWrittenBack: of a file that is destroyed while its bytes are on
// their way to the servers no datafile is left.
func TestUnlinkWhileWrittenBack(t *testing.T) {
	s := startSystem(t, 1, 4, func(_ int, o *Options) { o.WriteBack = 20 * time.Millisecond })
	m := s.mount(t)
	for round := range 60 {
		h, name := m.fileHomedAt(m.root, fmt.Sprint("f", round, "."), 0)
		_, err := m.open(h, 0)
		require.NoError(t, err)
		require.NoError(t, m.write(h, 0, make([]byte, 256<<10), 0))
		_, err = m.unlink(m.root, name)
		require.NoError(t, err)
		time.Sleep(time.Duration(rand.IntN(25)) * time.Millisecond)
		m.closeFile(h)
	}
	var found []fsck.Finding
	until(t, "all files are gone, with their data", func() bool {
		r, err := fsck.Check(t.Context(), s.nodes[0].client, fsck.Options{})
		require.NoError(t, err)
		found = r.Findings
		return r.Bytes == 0 && len(r.Findings) == 0
	}, func() { t.Log(found) })
}
