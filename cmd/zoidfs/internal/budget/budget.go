// Package budget says how much memory for file data a role takes that was not
// told.
package budget

import (
	"bytes"
	"math"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/fs"
	"github.com/zoidfs/zoidfs/ionserver"
)

// The most that a role takes unasked: a compute node's memory is for its
// programs, whatever it has.
const (
	maxMount = 4 << 30
	maxION   = 16 << 30
)

// Mount is the budget of each of n mounts on this machine: a sixteenth of its
// memory for all, but fs.DefaultCache at least.
func Mount(n int) int64 { return share(Limit(), 16*n, fs.DefaultCache, maxMount) }

// ION is the budget of each of n I/O nodes on this machine: an eighth of its
// memory for all, but ionserver.DefaultCache at least.
func ION(n int) int64 { return share(Limit(), 8*n, ionserver.DefaultCache, maxION) }

// share is a part of limit in whole MiB, from least to most.
func share(limit int64, part int, least, most int64) int64 {
	return max(least, min(limit/int64(max(part, 1)), most)>>20<<20)
}

// Limit is how many bytes this process may use: what the machine has, or the
// least that one of its control groups allows.
func Limit() int64 {
	n := int64(math.MaxInt64)
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		n = int64(info.Totalram) * int64(info.Unit)
	}
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return n
	}
	return min(n, groupLimit("/sys/fs/cgroup", string(groups)))
}

// groupLimit is what the second version's groups of a /proc/PID/cgroup allow
// below root: each limits what is in those below it, too.
func groupLimit(root, groups string) int64 {
	n := int64(math.MaxInt64)
	for line := range strings.Lines(groups) {
		dir, found := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !found {
			continue
		}
		for dir = path.Clean("/" + dir); ; dir = path.Dir(dir) {
			text, _ := os.ReadFile(path.Join(root, dir, "memory.max"))
			if m, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64); err == nil { // else "max", or none
				n = min(n, m)
			}
			if dir == "/" {
				break
			}
		}
	}
	return n
}
