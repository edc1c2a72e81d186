package lab

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/experiment"
)

// Machine is what one needs to know of this machine to repeat an experiment. It
// looks at the file system that has, or will have, the directory scratch.
func Machine(version, scratch string) experiment.Environment {
	e := experiment.Environment{
		Version: version, Go: runtime.Version(), CPU: cpu(), CPUs: runtime.NumCPU(), Command: os.Args, Started: time.Now().UTC(),
	}
	e.Host, _ = os.Hostname() // may be unknown
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		e.Kernel = unix.ByteSliceToString(uts.Release[:])
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		e.Memory = int64(info.Totalram) * int64(info.Unit)
	}
	for dir := scratch; e.Storage == ""; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil {
			e.Storage = storage(dir)
		}
	}
	return e
}

// cpu is the name of the processor.
func cpu() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
