"""The consumers and the ladder that the broker's tests use."""

from broker import ConsumerQueues

FINISHED = "OnlineRecordFinished"

#: Two consumers of one event, and one that is removed in the middle.
ARCHIVE = ConsumerQueues(consumer="archive", routing_keys=(FINISHED,))
REPORT = ConsumerQueues(consumer="report", routing_keys=(FINISHED,))
GONE = ConsumerQueues(consumer="gone", routing_keys=())
UNRECOGNIZED = ConsumerQueues(consumer="unrecognized", routing_keys=("unrecognized",))
CONSUMERS = (ARCHIVE, REPORT, GONE)

SHORT_S = 0.2
LONG_S = 1.0
LADDER = (SHORT_S, LONG_S)
