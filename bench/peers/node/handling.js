// amqplib: decode, handle, acknowledge.
import amqp from 'amqplib'
import { countHandled } from './progress.js'

const { BENCH_AMQP_URL, BENCH_QUEUE } = process.env
const PREFETCH = 100

const connection = await amqp.connect(BENCH_AMQP_URL)
const channel = await connection.createChannel()
await channel.prefetch(PREFETCH)

function handle (message) {
  try {
    JSON.parse(message.content)
    countHandled()
    channel.ack(message)
  } catch {
    channel.nack(message)
  }
}

await channel.consume(BENCH_QUEUE, handle)

process.on('SIGTERM', async () => {
  await connection.close()
  process.exit(0)
})
