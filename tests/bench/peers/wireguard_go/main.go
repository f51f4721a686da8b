// A relay between two TUN devices by wireguard-go's own device, package tun, as wireguard-go uses it.
//
//	relay DEVICE DEVICE
//
// Super-packets come cut into segments, and segments are grouped again when written: that is what Read and Write
// do. One goroutine a direction. Creates both devices, or attaches to them, and runs until one is gone. What the
// other device refuses is lost.
package main

import (
	"errors"
	"fmt"
	"os"

	"golang.zx2c4.com/wireguard/tun"
)

const (
	mtu = 1500
	// Room in front of a packet for virtio's header; wireguard-go leaves 16 bytes, for its own.
	headroom = 16
	// Write groups segments in the first one's buffer, as far as it reaches.
	longestPacket = 65535
)

func relay(from, to tun.Device) error {
	batch := from.BatchSize()
	buffers := make([][]byte, batch)
	for i := range buffers {
		buffers[i] = make([]byte, headroom+longestPacket)
	}
	lengths := make([]int, batch)
	packets := make([][]byte, batch)
	for {
		count, err := from.Read(buffers, lengths, headroom)
		if err != nil && !errors.Is(err, tun.ErrTooManySegments) {
			return err
		}
		for i := range count {
			packets[i] = buffers[i][:headroom+lengths[i]]
		}
		if count == 0 {
			continue
		}
		if _, err := to.Write(packets[:count], headroom); errors.Is(err, os.ErrClosed) {
			return err
		}
	}
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "Usage: relay DEVICE DEVICE")
		os.Exit(2)
	}
	var devices [2]tun.Device
	for i, name := range os.Args[1:] {
		device, err := tun.CreateTUN(name, mtu)
		if err != nil {
			fmt.Fprintf(os.Stderr, "Cannot open device %q: %v\n", name, err)
			os.Exit(1)
		}
		devices[i] = device
		// wireguard-go's own reader of them; unread, they would block the device's listener.
		go func() {
			for range device.Events() {
			}
		}()
	}

	ended := make(chan error)
	for i := range devices {
		go func() {
			err := relay(devices[i], devices[1-i])
			ended <- fmt.Errorf("from %q to %q: %w", os.Args[1+i], os.Args[2-i], err)
		}()
	}
	fmt.Fprintf(os.Stderr, "Cannot relay %v\n", <-ended)
	os.Exit(1)
}
