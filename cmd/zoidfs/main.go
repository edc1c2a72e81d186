// Command zoidfs is every part of zoidfs in one binary, one subcommand a role:
// the mount of a compute node, the I/O node, the embedded PVFS2 server, and the
// commands that run all of them on one machine and look at them.
//
// It parses flags, wires the rooms together, turns signals into a cancelled
// context and errors into one line and an exit code. What the roles do is in
// the packages fs, ionserver and pvfs; what concerns processes, namespaces and
// the mount table of this machine is in the packages below internal.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args, os.Stdout, os.Stderr))
}

// exitError ends the program with a status of its own. The message, if any,
// has been printed already when err is nil.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// run executes the command line args, whose first word is the name by which
// the program was called, and returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	words, err := helperArgs(filepath.Base(args[0]), args[1:])
	if err != nil {
		fmt.Fprintf(stderr, "zoidfs: %s\n", oneLine(err))
		return 1
	}
	if words == nil { // mount(8) wanted to know whether it could, or nothing at all
		return 0
	}
	root := newRoot(stdout, stderr)
	root.SetArgs(words)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	code := 1
	var exit *exitError
	if errors.As(err, &exit) {
		code = exit.code
		if exit.err == nil {
			return code
		}
	}
	fmt.Fprintf(stderr, "%s: %s\n", cmd.CommandPath(), oneLine(err))
	return code
}

// oneLine is the text of err without line breaks.
func oneLine(err error) string {
	var parts []string
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSpace(line); line != "" {
			parts = append(parts, line)
		}
	}
	return strings.Join(parts, "; ")
}
