// Command vmrun runs tests inside of virtual machines whose kernels enforce
// AppArmor or SELinux.
//
//	vmrun test [-lsm NAME] [go test flags] [packages]
//
// runs the test packages that have files behind the build tag lsm_apparmor or
// lsm_selinux, each inside a machine with that module, and prints what `go test`
// prints. Packages may be named; then those are run. Where no machine can run
// it says so and does nothing, or fails where CI=true is set.
//
//	go test -tags lsm_apparmor -exec "vmrun exec -lsm apparmor --" ./some/package
//
// is what it does underneath.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/confine-dev/confine/test/vm/bench"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT)
	status := bench.Main(ctx, os.Args[1:])
	stop()
	os.Exit(status)
}
