// amqplib and pg: decode, store in a transaction, acknowledge.
import { hash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import amqp from 'amqplib'
import pg from 'pg'

const { BENCH_AMQP_URL, BENCH_QUEUE, BENCH_DATABASE_URL, BENCH_SQL } = process.env
const PREFETCH = 100
const CONNECTIONS = 10

// Named, so that each connection prepares them once.
const insertEvent = { name: 'insert_event', text: readFileSync(`${BENCH_SQL}/insert_event.sql`, 'utf8') }
const upsertRecording = { name: 'upsert_recording', text: readFileSync(`${BENCH_SQL}/upsert_recording.sql`, 'utf8') }

const pool = new pg.Pool({ connectionString: BENCH_DATABASE_URL, max: CONNECTIONS })

async function store (eventId, body, event) {
  const { EventData: data, EventType, SdkAppId, Timestamp } = event
  const client = await pool.connect()
  try {
    await client.query('BEGIN')
    const inserted = await client.query(
      { ...insertEvent, values: [eventId, EventType, SdkAppId, data.TaskId, Timestamp, body] })
    if (inserted.rowCount === 1) {
      await client.query({
        ...upsertRecording,
        values: [
          SdkAppId, data.TaskId, data.RoomId, data.GroupId, data.RecordUserId, data.FinishReason, data.RecordStartTime,
          data.RecordStopTime, data.TotalTime, data.ExceptionCnt, JSON.stringify(data.OmittedDurations ?? []),
          JSON.stringify(data.VideoInfos ?? []), Timestamp, eventId
        ]
      })
    }
    await client.query('COMMIT')
  } catch (error) {
    await client.query('ROLLBACK')
    throw error
  } finally {
    client.release()
  }
}

const connection = await amqp.connect(BENCH_AMQP_URL)
const channel = await connection.createChannel()
await channel.prefetch(PREFETCH)

async function handle (message) {
  try {
    const eventId = message.properties.headers['tiw-event-id'] ?? hash('sha256', message.content).slice(0, 32)
    await store(eventId, message.content, JSON.parse(message.content))
    channel.ack(message)
  } catch (error) {
    console.error(error)
    channel.nack(message)
  }
}

await channel.consume(BENCH_QUEUE, handle)

process.on('SIGTERM', async () => {
  await connection.close()
  await pool.end()
  process.exit(0)
})
