"""What a link carries: payload bytes/s from lanes, line rate, and the arithmetic of packets and flits.

    payload/s = transfers/s x lanes / 8 x payload of a unit / wire bytes of that unit

    pcie      generations 3 to 5: 128b/130b; a packet of `packet` bytes of payload has a header of 12 B (completions) or 16 B
              (writes and requests, 64-bit addresses), 4 B of framing and sequence number, 4 B LCRC; an acknowledgement and a
              credit update (8 B each) for every fourth packet. Generation 6: flits of 256 B with 236 B for packets (6 B DLP,
              8 B CRC, 6 B FEC) in place of line code, framing and LCRC.
    cxl-68b   CXL 1.1 and 2.0: flits of four slots of 16 B and 4 B of CRC and protocol ID. A read of 64 B takes four data slots
              and a header slot (`packed`: a third of one), a write a header slot and four data slots, a request one slot.
    cxl-256b  CXL 3.0 and 3.1: flits of 256 B with a header slot and at most 14 data slots of 16 B; CRC and FEC in the rest.

The read direction carries data that is read; the write direction data that is written, and the requests of reads.
Real links reach less (measured entries of the catalogue: 86 to 97 % of this): hosts complete reads in smaller pieces.
Not modelled: retries, mixes of message classes within a flit, retimers.
Sources: PCI Express base specification 5.0 and 6.0 (recalled); slots of a CXL flit: 528-bit flit, 4 x 16 B and 2 B CRC.
"""

from __future__ import annotations

from typing import NamedTuple

LINE, SLOT = 64.0, 16.0  # bytes of a CXL.mem line, of a slot
COMPLETION_HEADER, REQUEST_HEADER, FRAMING, DLLP = 12.0, 16.0, 8.0, 8.0
PACKETS_PER_ACK = 4
FLIT, FLIT_PACKETS = 256.0, 236.0  # bytes of a PCIe 6 flit, and those that carry packets
GENERATIONS = {3: 8e9, 4: 16e9, 5: 32e9, 6: 64e9}  # transfers/s of a lane
LANES = (1, 2, 4, 8, 16, 32)
PROTOCOLS = {"pcie": (3, 4, 5, 6), "cxl-68b": (5,), "cxl-256b": (6,)}  # with their generations of the physical layer


class Payload(NamedTuple):
    read: float  # bytes/s of data
    write: float
    requests: float  # of the write direction per byte read: what could have been payload of writes


def payload(
    protocol: str, generation: int, lanes: int, packet: float = 256.0, request: float = 512.0, packed: bool = False
) -> Payload:  # fmt: skip
    """`packet`: payload of a packet, `request`: bytes that one read request asks for (PCIe); `packed`: CXL headers."""
    raw = GENERATIONS[generation] * lanes / 8.0
    if protocol == "pcie":
        around = 0.0 if generation >= 6 else FRAMING + 2.0 * DLLP / PACKETS_PER_ACK
        raw *= FLIT_PACKETS / FLIT if generation >= 6 else 128.0 / 130.0
        read = packet / (packet + COMPLETION_HEADER + around)
        write = packet / (packet + REQUEST_HEADER + around)
        return Payload(raw * read, raw * write, (REQUEST_HEADER + around) / request * write)
    if protocol == "cxl-68b":
        lines = raw * LINE / (68.0 * SLOT)  # slots/s x 16 B, as lines of one slot
        data = LINE / SLOT
        return Payload(lines * LINE / (data + (1.0 / 3.0 if packed else 1.0)), lines * LINE / (data + 1.0), 1.0 / (data + 1.0))
    if protocol == "cxl-256b":
        best = raw * 14.0 * SLOT / FLIT
        return Payload(best, best, SLOT / LINE)
    raise ValueError(f"no arithmetic for protocol {protocol!r}")
