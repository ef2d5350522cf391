package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/sign"
)

const (
	passwordEnv = "COSIGN_PASSWORD"
	maxKeyBytes = 64 << 10
)

func (a *app) loadKey(path string) (*sign.Key, error) {
	data, err := readBounded(path, maxKeyBytes)
	if err != nil {
		return nil, fmt.Errorf("--key: %w", err)
	}
	key, err := sign.LoadKey(data, func() ([]byte, error) { return a.password("password of " + path + ": ") })
	if err != nil {
		return nil, fmt.Errorf("--key %s: %w", path, err)
	}
	return key, nil
}

// password reads COSIGN_PASSWORD, which may be set to the empty password, or
// asks at a terminal.
func (a *app) password(prompt string) ([]byte, error) {
	if value, ok := a.LookupEnv(passwordEnv); ok {
		return []byte(value), nil
	}
	if a.ReadPassword == nil {
		return nil, fmt.Errorf("the key's password is needed: set %s, or run it at a terminal", passwordEnv)
	}
	return a.ReadPassword(prompt)
}

// signerOrNil keeps a nil key from becoming a non-nil interface.
func signerOrNil(key *sign.Key) artifact.Signer {
	if key == nil {
		return nil
	}
	return key
}

func (a *app) keygenCommand() *cobra.Command {
	var prefix string
	cmd := &cobra.Command{
		Use:   "keygen",
		Short: "Make a key pair for signing, as cosign generate-key-pair does",
		Long: `Keygen writes an encrypted private key PREFIX.key and the public key PREFIX.pub,
both readable by cosign. The password is read from COSIGN_PASSWORD or asked for
twice. Existing files are never overwritten.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return a.keygen(prefix) },
	}
	cmd.Flags().StringVar(&prefix, "output-key-prefix", "cosign", "path of the two files without .key and .pub")
	return cmd
}

func (a *app) keygen(prefix string) error {
	private, public := prefix+".key", prefix+".pub"
	for _, file := range []string{private, public} {
		if exists(file) {
			return fmt.Errorf("%s exists already: move it away or choose another --output-key-prefix", file)
		}
	}
	privatePEM, publicPEM, err := sign.GenerateKeyPair(a.newPassword)
	if err != nil {
		return err
	}
	if err := writeNew(private, privatePEM, 0o600); err != nil {
		return err
	}
	if err := writeNew(public, publicPEM, 0o644); err != nil {
		return err
	}
	a.printf("%s written: keep it secret\n%s written: name it in a TrustPolicy\n", private, public)
	return nil
}

func (a *app) newPassword() ([]byte, error) {
	if value, ok := a.LookupEnv(passwordEnv); ok {
		return []byte(value), nil
	}
	first, err := a.password("password for the new private key: ")
	if err != nil {
		return nil, err
	}
	second, err := a.password("the same password again: ")
	if err != nil {
		return nil, err
	}
	if string(first) != string(second) {
		return nil, errors.New("the two passwords differ: nothing was written")
	}
	return first, nil
}

// writeNew writes a file that must not exist yet.
func writeNew(path string, data []byte, perm fs.FileMode) error {
	f, err := os.OpenFile(filepath.Clean(path), os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(f.Sync(), f.Close())
}
