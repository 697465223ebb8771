# A guest in one boot sector: up half a second after SeaBIOS, idle between clock
# ticks, and obedient to single keys on its serial console:
#
#   u   says how long it is up, in clock ticks (18.2 a second): `up=0000002a`
#   p   powers off
#   r   resets the machine
#   c   says by the pvpanic device that its kernel crashed
#   i   ignores the power button from now on
#   w   writes a sector of its disk, and says so when that is done
#
# Until told otherwise it powers off when the power button is pressed. q35's ACPI
# registers are where SeaBIOS puts them: PM1_STS 0x600, PM1_EN 0x602, PM1_CNT 0x604.
# SeaBIOS takes the keys from the serial port in its clock interrupt, so they are
# read from the keyboard's buffer; what is said goes to the port itself.

        .intel_syntax noprefix
        .code16
        .global _start
_start:
        cli
        xor     ax, ax
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     sp, 0x7c00
        sti
        cld
        mov     dword ptr [ticks], 0
        mov     byte ptr [stubborn], 0
        mov     eax, [0x46c]
        mov     [last], eax
        mov     dx, 0x602               # the power button sets its status bit
        mov     ax, 0x100
        out     dx, ax
        mov     si, offset hello
        call    say

rest:
        hlt
        mov     eax, [0x46c]            # the BIOS's own count of ticks
        cmp     eax, [last]
        je      button
        mov     [last], eax
        inc     dword ptr [ticks]
button:
        mov     dx, 0x600
        in      ax, dx
        test    ah, 1
        jz      key
        mov     ax, 0x100               # seen
        out     dx, ax
        cmp     byte ptr [stubborn], 0
        je      off
key:
        mov     ah, 1
        int     0x16
        jz      rest
        xor     ah, ah
        int     0x16
        cmp     al, 'u'
        je      up
        cmp     al, 'p'
        je      off
        cmp     al, 'r'
        je      reset
        cmp     al, 'c'
        je      crash
        cmp     al, 'w'
        je      write
        cmp     al, 'i'
        jne     rest
        inc     byte ptr [stubborn]
        mov     si, offset ignoring
        call    say
        jmp     rest

write:
        mov     ax, 0x301               # one sector, from behind this one
        mov     bx, 0x7e00
        mov     cx, 5                   # cylinder 0, sector 5
        mov     dx, 0x80                # head 0, first disk
        int     0x13
        mov     si, offset written
        call    say
        jmp     rest

off:
        mov     dx, 0x604               # SLP_EN with SLP_TYP 0: soft off
        mov     ax, 0x2000
        out     dx, ax
        jmp     rest

reset:
        mov     dx, 0xcf9               # hard reset
        mov     al, 6
        out     dx, al
        jmp     rest

crash:
        mov     dx, 0x505               # PVPANIC_PANICKED
        mov     al, 1
        out     dx, al
        jmp     rest

up:
        mov     si, offset uptime
        call    say
        mov     ebx, [ticks]
        mov     cx, 8
digit:
        rol     ebx, 4
        mov     al, bl
        and     al, 15
        add     al, '0'
        cmp     al, '9'
        jbe     plain
        add     al, 'a' - '0' - 10
plain:
        call    put
        loop    digit
        mov     si, offset newline
        call    say
        jmp     rest

say:
        lodsb
        test    al, al
        jz      said
        call    put
        jmp     say
said:
        ret

put:
        push    ax
        mov     dx, 0x3fd
full:
        in      al, dx
        test    al, 0x20
        jz      full
        pop     ax
        mov     dx, 0x3f8
        out     dx, al
        ret

hello:    .asciz "\r\nguest: hello\r\n"
written:  .asciz "written\r\n"
ignoring: .asciz "guest: ignoring the button\r\n"
uptime:   .asciz "up="
newline:  .asciz "\r\n"

        .org    510
        .word   0xaa55

        .set    ticks, 0x7e00
        .set    last, 0x7e04
        .set    stubborn, 0x7e08
