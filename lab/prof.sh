# usage: prof.sh "NN 512 512 512" tile
(SPIN=14 TILES=$2 nice -n -20 npx tsx lab/mm.ts "$1" > /tmp/lab/spin.out 2>&1 &) ; sleep 6; PID=$(grep pid /tmp/lab/spin.out | awk '{print $2}'); rm -f /tmp/lab/d.*; python3 lab/dump.py $PID /tmp/lab/d >/dev/null; perf record -e cpu-clock -p $PID -o /tmp/lab/perf.data -- sleep 3 >/dev/null 2>&1; perf report -i /tmp/lab/perf.data --stdio --sort dso 2>/dev/null | grep '%' | head -6
perf script -i /tmp/lab/perf.data -F ip 2>/dev/null | awk '{print $1}' | sort | uniq -c > /tmp/lab/hist.txt
python3 - <<'P'
import re,glob,subprocess
h={}
for l in open('/tmp/lab/hist.txt'):
    c,a=l.split(); h[a]=int(c)
best=None
for f in glob.glob('/tmp/lab/d.*'):
    base=int(f.split('.')[-1],16); import os
    size=os.path.getsize(f)
    n=sum(c for a,c in h.items() if base<=int(a,16)<base+size)
    if best is None or n>best[0]: best=(n,f,base)
n,f,base=best
print(best)
s=subprocess.run(['objdump','-D','-b','binary','-m','i386:x86-64',f'--adjust-vma=0x{base:x}',f],capture_output=True,text=True).stdout
out=open('/tmp/lab/ann.txt','w')
for l in s.split('\n'):
    m=re.match(r'\s*([0-9a-f]+):\t[0-9a-f ]+\t(.*)',l)
    if m: out.write(f"{h.get(m[1],''):>5} {m[1]} {m[2]}\n")
P
awk '{if ($1 ~ /^[0-9]+$/ && $2 ~ /^7f/) {c=int(NR/200); s[c]+=$1; t+=$1}} END {for (i in s) if (s[i]>t/200) print i*200, s[i], int(100*s[i]/t)}' /tmp/lab/ann.txt | sort -n
