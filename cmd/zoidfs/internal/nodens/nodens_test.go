package nodens

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// target is not the real one, which others may be using.
const target = "/zfs-test-of-nodens"

// stageEnv makes the test binary enter a node's view and run a shell script:
// its value is how. The other variables say where.
const stageEnv = "ZOIDFS_NODENS_STAGE"

func TestMain(m *testing.M) {
	stage := os.Getenv(stageEnv)
	if stage == "" {
		os.Exit(m.Run())
	}
	if err := child(stage); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

func child(stage string) error {
	view := View{Source: os.Getenv("SOURCE"), Target: target, Scratch: os.Getenv("SCRATCH")}
	switch stage {
	case "user":
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), stageEnv+"=inside", "PARENT="+strconv.Itoa(os.Getpid()))
		cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = os.Stdout, os.Stderr, ChildOfUser()
		if err := cmd.Start(); err != nil {
			return Explain(err)
		}
		return cmd.Wait()
	case "root":
		if err := Private(); err != nil {
			return err
		}
	case "inside":
		parent, err := strconv.Atoi(os.Getenv("PARENT"))
		if err != nil {
			return err
		}
		if err := DieWith(parent); err != nil {
			return err
		}
	}
	if err := Setup(view); err != nil {
		return err
	}
	if stage == "inside" {
		if err := DropPrivileges(); err != nil {
			return err
		}
	}
	return syscall.Exec("/bin/sh", []string{"sh", "-c", os.Getenv("SCRIPT")}, os.Environ())
}

// enter runs a script in a view whose target is a new directory that holds the
// file "hello", and returns what the script printed and that directory.
func enter(t *testing.T, stage, script string) (out, source string) {
	t.Helper()
	base, err := os.MkdirTemp("", "zns")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(base)) })
	source, scratch, bin := filepath.Join(base, "src"), filepath.Join(base, "view"), filepath.Join(base, "bin")
	require.NoError(t, os.Chmod(base, 0o755))
	require.NoError(t, os.Mkdir(source, 0o755))
	require.NoError(t, os.Mkdir(scratch, 0o755))
	require.NoError(t, os.WriteFile(source+"/hello", []byte("hello\n"), 0o644))
	copyFile(t, "/proc/self/exe", bin)
	cmd := exec.Command(bin)
	cmd.Dir = base
	cmd.Env = append(os.Environ(), stageEnv+"="+stage, "SOURCE="+source, "SCRATCH="+scratch, "SCRIPT="+script)
	if stage == "user" && os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	b, err := cmd.CombinedOutput()
	if strings.Contains(string(b), "user namespaces, which this kernel forbids") && os.Getenv("CI") != "true" {
		t.Skip(string(b))
	}
	require.NoError(t, err, string(b))
	return string(b), source
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	require.NoError(t, err)
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	require.NoError(t, err)
	_, err = io.Copy(out, in)
	require.NoError(t, err)
	require.NoError(t, out.Close())
}

func TestRootSeesItsNode(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: mount namespaces")
	}
	t.Cleanup(func() { require.NoError(t, os.Remove(target)) }) // which Setup makes
	out, source := enter(t, "root", `cat `+target+`/hello; echo more >`+target+`/written; pwd`)
	require.Regexp(t, `^hello\n/.*/zns\d+\n$`, out)
	b, err := os.ReadFile(source + "/written")
	require.NoError(t, err)
	require.Equal(t, "more\n", string(b))
	_, err = os.Stat(target + "/hello")
	require.ErrorIs(t, err, os.ErrNotExist, "others must not see it")
}

func TestUserSeesItsNode(t *testing.T) {
	out, _ := enter(t, "user", `cat `+target+`/hello; pwd; ls -d /proc/self /etc/passwd; id -u; grep CapEff /proc/self/status
		mount -t tmpfs none `+target+` 2>/dev/null || echo no mount`)
	uid := os.Getuid()
	if uid == 0 {
		uid = 65534
	}
	require.Regexp(t, `^hello\n/.*/zns\d+\n/etc/passwd\n/proc/self\n`+strconv.Itoa(uid)+`\nCapEff:\s+0+\nno mount\n$`, out)
	_, err := os.Stat(target)
	require.ErrorIs(t, err, os.ErrNotExist, "nobody else sees the directory that was added")
}

func TestDieWithNeedsTheParent(t *testing.T) {
	if os.Getenv("ZOIDFS_NODENS_DIE") == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestDieWithNeedsTheParent$")
		cmd.Env = append(os.Environ(), "ZOIDFS_NODENS_DIE=1")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		return
	}
	require.ErrorContains(t, DieWith(1<<30), "gone")
}
