; os_apic - the small operating system, for a machine with APICs.
;
; The same system: its timer is the local APIC's, COM1 interrupts through the I/O APIC, and the
; 8259s are silent. What differs is guests/lib/apic.inc in timer.inc's place, and devices.inc.

%define APIC
%include "os.asm"
