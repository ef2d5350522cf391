package agent

import (
	"context"
	"log/slog"

	"github.com/fsnotify/fsnotify"
)

// Watch says when something in one of the folders changes, until ctx ends;
// then the channel is closed. It is a hint: notifications get lost, so the
// agent reads the folders now and then anyway. A folder that cannot be watched
// is left to that.
func Watch(ctx context.Context, log *slog.Logger, folders ...string) <-chan struct{} {
	changes := make(chan struct{}, 1)
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		log.Warn("folders are not watched, only read now and then", "error", err)
		close(changes)
		return changes
	}
	for _, folder := range folders {
		if err := watcher.Add(folder); err != nil {
			log.Warn("a folder is not watched, only read now and then", "folder", folder, "error", err)
		}
	}
	go func() {
		defer close(changes)
		defer func() { _ = watcher.Close() }()
		for {
			select {
			case <-ctx.Done():
				return
			case _, ok := <-watcher.Events:
				if !ok {
					return
				}
			case err, ok := <-watcher.Errors: // events were lost: look as if there was one
				if !ok {
					return
				}
				log.Warn("notifications were lost", "error", err)
			}
			select {
			case changes <- struct{}{}:
			default: // one is waiting already
			}
		}
	}()
	return changes
}
