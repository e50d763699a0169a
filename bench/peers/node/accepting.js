// fastify and amqplib with a confirm channel: answers 200 once the broker has confirmed.
import { hash, timingSafeEqual } from 'node:crypto'
import amqp from 'amqplib'
import fastify from 'fastify'

const { BENCH_AMQP_URL, BENCH_KEY, BENCH_PORT } = process.env
const EXCHANGE = 'bench.events'
const QUEUE = 'bench.callbacks'
const SKEW_S = 300
const ANSWER = Buffer.from('{"error_code":0}')

const connection = await amqp.connect(BENCH_AMQP_URL)
const channel = await connection.createConfirmChannel()
await channel.assertExchange(EXCHANGE, 'topic', { durable: true })
await channel.assertQueue(QUEUE, { durable: true, arguments: { 'x-queue-type': 'quorum' } })
await channel.bindQueue(QUEUE, EXCHANGE, '#')

// What cannot be routed comes back before it is confirmed.
const returned = new Set()
channel.on('return', message => returned.add(message.properties.messageId))

let published = 0

function publish (body, routingKey) {
  const messageId = String(++published)
  const options = { persistent: true, mandatory: true, contentType: 'application/json', messageId }
  return new Promise((resolve, reject) => {
    channel.publish(EXCHANGE, routingKey, body, options, error => {
      if (error) reject(error)
      else if (returned.delete(messageId)) reject(new Error('unroutable'))
      else resolve()
    })
  })
}

function isAuthentic ({ ExpireTime, Sign }) {
  if (!Number.isSafeInteger(ExpireTime) || typeof Sign !== 'string') return false
  const expected = Buffer.from(hash('md5', BENCH_KEY + ExpireTime))
  const given = Buffer.from(Sign)
  return given.length === expected.length && timingSafeEqual(given, expected) && ExpireTime >= Date.now() / 1000 - SKEW_S
}

const app = fastify({ logger: false })
// As a buffer: the body travels as it came.
app.addContentTypeParser('application/json', { parseAs: 'buffer' }, (request, body, done) => done(null, body))

app.post('/callbacks/tiw', { bodyLimit: 1048576 }, async (request, reply) => {
  const callback = JSON.parse(request.body)
  reply.header('content-type', 'application/json')
  if (!isAuthentic(callback)) {
    return reply.code(401).send('{"error_code":401,"error_message":"not authentic"}')
  }
  await publish(request.body, callback.EventType)
  return reply.send(ANSWER)
})

await app.listen({ host: '127.0.0.1', port: Number(BENCH_PORT) })

process.on('SIGTERM', async () => {
  await app.close()
  await connection.close()
  process.exit(0)
})
