//go:build !linux

package purge

// loadedKinds is empty: only Linux loads profiles.
func loadedKinds() []loadedKind { return nil }
