// Load client for a bridge on loopback (epoll, about 0.1 core at 10 000 requests/s, so it is never the bottleneck).
//   cc -O2 -o load_client load_client.c
//   load_client life PORT PREFIX CONNS SECS CONTENT_TYPE [IDFILE]                     lifecycles/s (create, claim, result) and latency of each phase
//   load_client claim PORT PREFIX CONNS COUNT CONTENT_TYPE                            COUNT claims of jobs that wait, and nothing else: seconds, latency
//   load_client park PORT PREFIX PARKED RATE COUNT CONTENT_TYPE REPOLL_MS WAIT_S      time from sending a create, and from its answer, to the answer of a parked poll
//   load_client park PORT PREFIX PARKED SECS 0 CONTENT_TYPE 0 WAIT_S                  only holds PARKED polls for SECS (memory, idle CPU)
// PREFIX is /api/v1/remote-jobs. Environment: LOAD_KEY (bearer key, optional), LOAD_SOURCE (source_file_path of the jobs).
// Answers of more than 4 KiB are not understood; it speaks HTTP/1.1 keep-alive with Content-Length only.
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <arpa/inet.h>
#include <time.h>
#include <errno.h>
#include <sys/resource.h>
#define NC 8 // connections on which `park` creates in turn: on one alone, all creates would be of one process
static double now(){struct timespec t;clock_gettime(CLOCK_MONOTONIC,&t);return t.tv_sec+t.tv_nsec*1e-9;}
typedef struct{int fd,st,len,idx;double t0,next;char id[40];char buf[4096];}C;
static int port,ep;static const char*pre,*ct;static int tmo=30;static char auth[256];static const char*src;
static int cmp(const void*a,const void*b){double x=*(double*)a,y=*(double*)b;return x<y?-1:x>y;}
static void pct(const char*n,double*v,long c){if(!c){printf("%s n=0\n",n);return;}qsort(v,c,8,cmp);printf("%s n=%ld p50=%.2fms p90=%.2fms p99=%.2fms max=%.2fms\n",n,c,v[c/2]*1e3,v[(long)(c*.9)]*1e3,v[(long)(c*.99)]*1e3,v[c-1]*1e3);}
static int conn(){int f=socket(AF_INET,SOCK_STREAM,0);struct sockaddr_in a={.sin_family=AF_INET,.sin_port=htons(port)};static unsigned k=0;a.sin_addr.s_addr=htonl(0x7f000001);
 if(connect(f,(void*)&a,sizeof a)){perror("connect");exit(1);}int o=1;setsockopt(f,IPPROTO_TCP,TCP_NODELAY,&o,sizeof o);return f;}
static void snd(C*c,const char*b,int n){c->t0=now();if(send(c->fd,b,n,MSG_NOSIGNAL)!=n){perror("send");exit(1);}}
static void create(C*c,const char*path){char body[512],b[1024];int n=sprintf(body,"{\"ingestion_task_id\":\"task-123\",\"source_file_path\":\"%s\",\"content_type\":\"%s\",\"task_options\":{\"model\":\"base\",\"t\":\"%s\"}}",src,ct,path);
 int m=sprintf(b,"POST %s/ HTTP/1.1\r\nHost: l\r\n%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",pre,auth,n,body);snd(c,b,m);}
static void poll_(C*c){char b[512];int m=sprintf(b,"GET %s/poll?worker_id=w%d&content_types=%s&wait=%d HTTP/1.1\r\nHost: l\r\n%s\r\n",pre,c->idx,ct,tmo,auth);snd(c,b,m);}
static void result(C*c){const char*body="{\"success\":true,\"content\":\"hello world\",\"metadata\":{\"a\":1},\"processing_time\":1.5}";char b[1024];
 int m=sprintf(b,"PUT %s/%s/result HTTP/1.1\r\nHost: l\r\n%sContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",pre,c->id,auth,strlen(body),body);snd(c,b,m);}
// returns 1 when a full response is in buf
static int rd(C*c){int n=recv(c->fd,c->buf+c->len,sizeof(c->buf)-1-c->len,MSG_DONTWAIT);if(n<=0){if(n<0&&errno==EAGAIN)return 0;fprintf(stderr,"closed n=%d errno=%d st=%d\n",n,errno,c->st);exit(2);}c->len+=n;c->buf[c->len]=0;
 char*h=strstr(c->buf,"\r\n\r\n");if(!h)return 0;char*l=strcasestr(c->buf,"content-length:");int cl=l&&l<h?atoi(l+15):0;if(c->len<(h+4-c->buf)+cl)return 0;c->len=0;return 1;}
static int getid(C*c){char*p=strstr(c->buf,"\"job_id\"");if(!p)return 0;p+=8;while(*p==':'||*p==' ')p++;if(*p!='"')return 0;memcpy(c->id,p+1,36);c->id[36]=0;return 1;}
int main(int ac,char**av){if(getenv("LOAD_KEY"))snprintf(auth,sizeof auth,"Authorization: Bearer %s\r\n",getenv("LOAD_KEY"));src=getenv("LOAD_SOURCE")?getenv("LOAD_SOURCE"):"/data/in/file.mp4";
 struct rlimit rl={20000,20000};setrlimit(RLIMIT_NOFILE,&rl);
 port=atoi(av[2]);pre=av[3];int N=atoi(av[4]);ep=epoll_create1(0);
 static struct epoll_event ev[512];
 if(!strcmp(av[1],"life")){double secs=atof(av[5]);ct=av[6];FILE*idf=ac>7?fopen(av[7],"w"):0;
  C*cs=calloc(N,sizeof(C));static double L[3][4000000];long n[3]={0},empt=0,err=0;
  for(int i=0;i<N;i++){cs[i].idx=i;cs[i].fd=conn();struct epoll_event e={EPOLLIN,{.ptr=cs+i}};epoll_ctl(ep,EPOLL_CTL_ADD,cs[i].fd,&e);}
  double t=now(),end=t+secs;int live=N;for(int i=0;i<N;i++)create(cs+i,src);
  double hard=end+10;long done=0,donein=0;
  while(live&&now()<hard){int k=epoll_wait(ep,ev,512,100);for(int j=0;j<k;j++){C*c=ev[j].data.ptr;if(!rd(c))continue;double w=now();int code=atoi(c->buf+9);
   if(code>=300){err++;if(err<4)fprintf(stderr,"HTTP %d st=%d: %.300s\n",code,c->st,c->buf);}
   if(n[c->st]<4000000)L[c->st][n[c->st]++]=w-c->t0;
   if(c->st==0){c->st=1;poll_(c);}
   else if(c->st==1){if(getid(c)){if(idf)fprintf(idf,"%s\n",c->id);c->st=2;result(c);}else{empt++;if(w>end){live--;}else {poll_(c);}}}
   else{done++;if(w<end)donein++;if(w<end){c->st=0;create(c,src);}else live--;}
  }}
  struct rusage ru;getrusage(RUSAGE_SELF,&ru);
  printf("LIFE conns=%d lifecycles/s=%.0f http/s=%.0f empty=%ld err=%ld client_cpu=%.2fs\n",N,donein/secs,3*donein/secs,empt,err,ru.ru_utime.tv_sec+ru.ru_utime.tv_usec*1e-6+ru.ru_stime.tv_sec+ru.ru_stime.tv_usec*1e-6);
  pct(" create",L[0],n[0]);pct(" poll  ",L[1],n[1]);pct(" result",L[2],n[2]);if(idf)fclose(idf);return 0;}
 if(!strcmp(av[1],"claim")){long count=atol(av[5]),sent=0,done=0,empt=0,err=0;ct=av[6];tmo=0;static double L[1000000];if(count>1000000)return 3;
  C*cs=calloc(N,sizeof(C));for(int i=0;i<N;i++){cs[i].idx=i;cs[i].fd=conn();struct epoll_event e={EPOLLIN,{.ptr=cs+i}};epoll_ctl(ep,EPOLL_CTL_ADD,cs[i].fd,&e);}
  double t=now(),hard=t+60;for(int i=0;i<N&&sent<count;i++,sent++)poll_(cs+i);
  while(done<count&&now()<hard){int k=epoll_wait(ep,ev,512,100);for(int j=0;j<k;j++){C*c=ev[j].data.ptr;if(!rd(c))continue;
   int code=atoi(c->buf+9);if(code>=300){err++;if(err<4)fprintf(stderr,"HTTP %d: %.300s\n",code,c->buf);}else if(!getid(c))empt++;
   L[done++]=now()-c->t0;if(sent<count){sent++;poll_(c);}}}
  printf("CLAIM conns=%d n=%ld seconds=%.6f empty=%ld err=%ld\n",N,done,now()-t,empt,err);pct(" claim",L,done);return 0;}
 // park
 double rate=atof(av[5]);long cnt=atol(av[6]);ct=av[7];double rep=atof(av[8])/1e3;tmo=atoi(av[9]);
 C*cs=calloc(N+NC,sizeof(C));static double D[200000];long nd=0,sent=0,ncr=0,empt=0;static double CR[200000],SA[200000],AA[200000],PA[200000],DA[200000];long nda=0,early=0;
 srand(7);
 for(int i=0;i<N+NC;i++){cs[i].idx=i;cs[i].fd=conn();struct epoll_event e={EPOLLIN,{.ptr=cs+i}};epoll_ctl(ep,EPOLL_CTL_ADD,cs[i].fd,&e);if(i<N){if(rep>0){cs[i].st=3;cs[i].next=now()+rep*(rand()/(double)RAND_MAX);}else{cs[i].st=1;poll_(cs+i);} if(i%200==199)usleep(20000);}}
 double s=now();while(cnt&&now()-s<1+N/2000.)usleep(100000); // until all are parked
 if(!cnt){printf("parked %d\n",N);fflush(stdout);double e=now()+rate;while(now()<e){int k=epoll_wait(ep,ev,512,200);for(int j=0;j<k;j++){C*c=ev[j].data.ptr;if(rd(c)){if(empt<3&&atoi(c->buf+9)>=300)fprintf(stderr,"HTTP %.60s\n",c->buf);empt++;poll_(c);}}}printf("re-polls %ld\n",empt);return 0;}
 double next=now();int busy=0;double lastev=now();
 while(nd<cnt){double w=now();
  if(sent<cnt&&!busy&&w>=next){char p[64];sprintf(p,"T%.9f",w);C*cr=cs+N+sent%NC;cr->st=0;create(cr,p);busy=1;SA[sent]=w;sent++;next+=1.0/rate;if(next<w)next=w;lastev=w;}
  if(w-lastev>30){fprintf(stderr,"stalled sent=%ld got=%ld\n",sent,nd);break;}
  double nx=sent<cnt?next:w+.2;
  if(rep>0)for(int i=0;i<N;i++)if(cs[i].st==3){if(cs[i].next<=w){cs[i].st=1;poll_(cs+i);}else if(cs[i].next<nx)nx=cs[i].next;}
  double d=nx-now();int to=d<=0?0:(d*1e3<1?1:(int)(d*1e3));if(busy&&d<=0)to=50; if(!busy&&d>0&&d<.0015)to=0;
  int k=epoll_wait(ep,ev,512,to);w=now();for(int j=0;j<k;j++){C*c=ev[j].data.ptr;if(!rd(c))continue;
   int code=atoi(c->buf+9);if(code>=300)fprintf(stderr,"HTTP %d %.200s\n",code,c->buf);
   if(c>=cs+N){busy=0;CR[ncr]=w-c->t0;AA[ncr]=w;ncr++;continue;}
   char*p=strstr(c->buf,"/T");if(!p)p=strstr(c->buf,"\"T");
   if(getid(c)){lastev=w;if(p){double s0=atof(p+2);D[nd++]=w-s0;for(long q=sent-1;q>=0;q--)if(SA[q]-s0<1e-8&&s0-SA[q]<1e-8){PA[q]=w;break;}}else{nd++;}}else empt++;
   if(rep>0){c->st=3;c->next=w+(rep);}else poll_(c);
  }}
 printf("PARK n=%d rate=%.0f empty=%ld\n",N,rate,empt);for(long q=0;q<ncr;q++)if(PA[q]>0){double d=PA[q]-AA[q];if(d<0){early++;d=0;}DA[nda++]=d;}
 printf(" answered before the create's own answer: %ld\n",early);pct(" from_answer",DA,nda);pct(" dispatch",D,nd);pct(" create  ",CR,ncr);return 0;}
