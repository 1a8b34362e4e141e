//go:build tools

package testbed

import (
	_ "github.com/hashicorp/consul"
)
