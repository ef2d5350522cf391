//go:build race

package fetch

// raceDetector reports whether this program was built with it.
const raceDetector = true
