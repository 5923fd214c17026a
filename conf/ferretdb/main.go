// Command ferretdb is a MongoDB wire server on PostgreSQL, for a machine
// without mongod: quickstart and the tests start it on their private cluster.
//
//	ferretdb -postgresql-url URL [-listen 127.0.0.1:27017]
//
// It sends no telemetry and ends on SIGTERM or SIGINT.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/FerretDB/FerretDB/ferretdb"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "ferretdb:", err)
		os.Exit(1)
	}
}

func run() error {
	url := flag.String("postgresql-url", "", "PostgreSQL connection string")
	listen := flag.String("listen", "127.0.0.1:27017", "TCP address; port 0 takes a free one")
	flag.Parse()

	// Every command is logged below warning.
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))

	server, err := ferretdb.New(&ferretdb.Config{
		Listener:      ferretdb.ListenerConfig{TCP: *listen},
		Logger:        logger,
		Handler:       "postgresql",
		PostgreSQLURL: *url,
	})
	if err != nil {
		return err
	}
	fmt.Println(server.MongoDBURI()) // the caller learns the port from this line

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return server.Run(ctx)
}
