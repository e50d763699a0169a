// net/http and amqp091-go with a confirming channel: answers 200 once the broker has confirmed.
package main

import (
	"context"
	"crypto/hmac"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	exchange = "bench.events"
	queue    = "bench.callbacks"
	skewS    = 300
	maxBody  = 1 << 20
)

var (
	key    = os.Getenv("BENCH_KEY")
	answer = []byte(`{"error_code":0}`)
)

type callback struct {
	EventType  string
	ExpireTime int64
	Sign       string
	// Decoded whole, as the others do.
	EventData map[string]any
}

func (c *callback) isAuthentic() bool {
	digest := md5.Sum([]byte(key + strconv.FormatInt(c.ExpireTime, 10)))
	expected := hex.EncodeToString(digest[:])
	return hmac.Equal([]byte(expected), []byte(c.Sign)) && c.ExpireTime >= time.Now().Unix()-skewS
}

type publisher struct {
	channel   *amqp.Channel
	published atomic.Uint64
	// What cannot be routed comes back before it is confirmed.
	returned sync.Map
}

func (p *publisher) publish(ctx context.Context, routingKey string, body []byte) bool {
	id := strconv.FormatUint(p.published.Add(1), 10)
	confirmation, err := p.channel.PublishWithDeferredConfirmWithContext(ctx, exchange, routingKey, true, false,
		amqp.Publishing{ContentType: "application/json", DeliveryMode: amqp.Persistent, MessageId: id, Body: body})
	if err != nil {
		return false
	}
	confirmed := confirmation.Wait()
	if _, isBack := p.returned.LoadAndDelete(id); isBack {
		return false
	}
	return confirmed
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func connect() (*amqp.Connection, *publisher) {
	connection, err := amqp.Dial(os.Getenv("BENCH_AMQP_URL"))
	must(err)
	channel, err := connection.Channel()
	must(err)
	must(channel.ExchangeDeclare(exchange, "topic", true, false, false, false, nil))
	_, err = channel.QueueDeclare(queue, true, false, false, false, amqp.Table{"x-queue-type": "quorum"})
	must(err)
	must(channel.QueueBind(queue, "#", exchange, false, nil))
	must(channel.Confirm(false))
	made := &publisher{channel: channel}
	returns := channel.NotifyReturn(make(chan amqp.Return))
	go func() {
		for one := range returns {
			made.returned.Store(one.MessageId, true)
		}
	}()
	return connection, made
}

func main() {
	connection, publishing := connect()
	http.HandleFunc("/callbacks/tiw", func(response http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(response, request.Body, maxBody))
		if err != nil {
			http.Error(response, "", http.StatusBadRequest)
			return
		}
		var content callback
		response.Header().Set("Content-Type", "application/json")
		if json.Unmarshal(body, &content) != nil || !content.isAuthentic() {
			response.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(response, `{"error_code":401,"error_message":"not authentic"}`)
			return
		}
		if !publishing.publish(request.Context(), content.EventType, body) {
			response.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = response.Write(answer)
	})
	server := &http.Server{Addr: "127.0.0.1:" + os.Getenv("BENCH_PORT")}
	stopped := make(chan os.Signal, 1)
	signal.Notify(stopped, syscall.SIGTERM)
	go func() {
		<-stopped
		_ = server.Shutdown(context.Background())
		_ = connection.Close()
		os.Exit(0)
	}()
	must(server.ListenAndServe())
}
