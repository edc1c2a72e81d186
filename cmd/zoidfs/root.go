package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// defaultDir is where `zoidfs up` keeps a system unless told otherwise.
const defaultDir = "zoidfs-run"

// app is what all subcommands share: the output and the flags of the root.
type app struct {
	out, err  io.Writer
	logLevel  string
	logFormat string
	logFile   string
}

func newRoot(stdout, stderr io.Writer) *cobra.Command {
	a := &app{out: stdout, err: stderr}
	root := &cobra.Command{
		Use:   "zoidfs",
		Short: "a collective I/O filesystem for clusters",
		Long: "zoidfs forwards the file system calls of compute nodes to a few I/O nodes, which order them\n" +
			"and stripe the data over PVFS2 (OrangeFS) servers.",
		Example: "  zoidfs up                       # a whole system on this machine\n" +
			"  ls zoidfs-run/node0/zfs\n" +
			"  zoidfs launch -n 8 -- ./program /zfs/output\n" +
			"  zoidfs down",
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		Args:              cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unknown command %q, see: zoidfs --help", args[0])
			}
			return cmd.Help()
		},
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return flagError(err) })
	flags := root.PersistentFlags()
	flags.StringVar(&a.logLevel, "log-level", "info", "least level that is logged: debug, info, warn or error")
	flags.StringVar(&a.logFormat, "log-format", "text", "form of the log: text or json")
	flags.StringVar(&a.logFile, "log-file", "", "append the log to `FILE` instead of standard error")
	root.AddCommand(
		a.upCommand(), a.downCommand(), a.statusCommand(), a.statsCommand(),
		a.experimentCommand(),
		a.mountCommand(), a.ionCommand(), a.pvfsdCommand(), a.fsckCommand(),
		a.launchCommand(), a.enterCommand(), a.stripeCommand(), a.consistencyCommand(),
		a.litmusCommand(), a.jobCommand(), a.hintsCommand(), a.traceCommand(), a.adviseCommand(), a.simulateCommand(), a.demoCommand(), a.versionCommand(),
		a.explainCommand(),
	)
	return root
}

// flagError says in the user's words what is wrong with the value of a flag.
func flagError(err error) error {
	var invalid *pflag.InvalidValueError
	if !errors.As(err, &invalid) {
		return err
	}
	var want string
	switch kind := invalid.GetFlag().Value.Type(); kind {
	case "int", "uint", "int64", "uint32", "uint64", "float64":
		want = "is not a number in range"
	case "intSlice", "uintSlice":
		want = "is not a list of numbers"
	case "duration":
		want = "is not a time, such as 5s"
	case "bool":
		want = "is neither true nor false"
	default:
		return err
	}
	return fmt.Errorf("--%s %q %s", invalid.GetFlag().Name, invalid.GetValue(), want)
}

// logger returns the logger that the flags ask for. Without --log-file it
// writes to standard error.
func (a *app) logger() (*slog.Logger, error) {
	out := a.err
	if a.logFile != "" {
		f, err := os.OpenFile(a.logFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
		if err != nil {
			return nil, fmt.Errorf("--log-file: %w", err)
		}
		out = f // open until the process ends
	}
	return newLogger(out, a.logLevel, a.logFormat)
}

func newLogger(out io.Writer, level, format string) (*slog.Logger, error) {
	var opt slog.HandlerOptions
	switch level {
	case "debug":
		opt.Level = slog.LevelDebug
	case "info":
		opt.Level = slog.LevelInfo
	case "warn":
		opt.Level = slog.LevelWarn
	case "error":
		opt.Level = slog.LevelError
	default:
		return nil, fmt.Errorf("--log-level %q is none of debug, info, warn, error", level)
	}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(out, &opt)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(out, &opt)), nil
	}
	return nil, fmt.Errorf("--log-format %q is none of text, json", format)
}

// noArgs refuses operands in words that name the first one.
func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unexpected argument %q", args[0])
	}
	return nil
}
