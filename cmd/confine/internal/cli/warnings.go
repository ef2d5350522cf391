package cli

import (
	"context"
	"log/slog"
)

// warnings shows what packages log as worth a person's attention.
type warnings struct{ app *app }

func (a *app) logger() *slog.Logger { return slog.New(warnings{app: a}) }

// Enabled leaves out what is no warning.
func (w warnings) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

// Handle prints one line.
func (w warnings) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(attr slog.Attr) bool {
		line += " (" + attr.Key + " " + attr.Value.String() + ")"
		return true
	})
	w.app.errorf("warning: %s\n", oneLine(line))
	return nil
}

// WithAttrs and WithGroup keep the handler: the command line adds neither.
func (w warnings) WithAttrs([]slog.Attr) slog.Handler { return w }

// WithGroup keeps the handler.
func (w warnings) WithGroup(string) slog.Handler { return w }
